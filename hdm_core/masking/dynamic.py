"""DM, dynamic masks: Section 3.2 of the paper, Eq. 6 to 10."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import auxiliary_masks, keep_top, masks_trained, upsample
from hdm_core.masking.optimizer import optimize_masks
from hdm_core.settings import DMSettings


def dynamic_mask(consistency: ConsistencyLoss, settings: DMSettings) -> Tensor:
    """Q(X), one DM block: the overlay mask M_b (B, 1, H, W) in [0, 1] of the images that `consistency` holds.

    Raises:
        ValueError: if a mask size is larger than the image.
    """
    height, width = consistency.contrast.shape[-2:]
    levels = auxiliary_masks(settings.sizes, settings.ratios, height, width)
    like = consistency.contrast

    start = [torch.full((len(like), 1, size, size), settings.tau, dtype=like.dtype, device=like.device) for size in settings.sizes]
    benchmarks = optimize_masks(start, [None] * len(start), consistency, settings)  # Eq. 6
    # c_j^0(i) = d_i: a benchmark mask enters the sum of Eq. 9 once for every ratio.
    stacked = len(settings.ratios) * torch.stack([upsample(mask, height, width) for mask in benchmarks]).sum(0)

    below = {(i, ratio): mask for i, mask in enumerate(benchmarks) for ratio in settings.ratios}
    for level in levels:
        start = [upsample(benchmarks[rung.base], rung.size, rung.size) for rung in level]  # Eq. 7
        guides = [upsample(below[rung.base, rung.ratio], rung.size, rung.size) for rung in level]
        auxiliary = optimize_masks(start, guides, consistency, settings)  # Eq. 8
        for rung, mask in zip(level, auxiliary, strict=True):
            stacked = stacked + upsample(mask, height, width)  # Eq. 9
            below[rung.base, rung.ratio] = mask
    return keep_top(stacked, settings.keep_fraction)  # Eq. 10


def dm_passes(settings: DMSettings, height: int, width: int) -> int:
    """Forward and backward passes of one DM block for one image."""
    each = 2 if settings.removal else 1
    return masks_trained(settings.sizes, settings.ratios, height, width) * settings.steps * each
