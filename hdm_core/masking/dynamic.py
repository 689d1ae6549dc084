"""Dynamic masks (DM): Section 3.2 of the paper, Eq. 6 to 10."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import Upsampling, auxiliary_masks, keep_top, mask_shape, masks_trained, upsample
from hdm_core.masking.optimizer import optimize_masks
from hdm_core.settings import DMSettings


def dynamic_mask(consistency: ConsistencyLoss, settings: DMSettings) -> Tensor:
    """Compute Q(X), one DM block: the mask M_b (B, 1, H, W) in [0, 1].

    X are the images that `consistency` holds.

    Raises:
        ValueError: if a mask size is larger than the image.
    """
    height, width = consistency.contrast.shape[-2:]
    levels = auxiliary_masks(settings.sizes, settings.ratios, height, width, settings.max_size)
    like = consistency.contrast

    shapes = [mask_shape(size, height, width) for size in settings.sizes]
    start = [torch.full((len(like), 1, *shape), settings.tau, dtype=like.dtype, device=like.device) for shape in shapes]
    benchmarks, averages = optimize_masks(start, [None] * len(start), consistency, settings)  # Eq. 6
    # c_j^0(i) = d_i: a benchmark mask enters the sum of Eq. 9 once for every ratio.
    stacked = len(settings.ratios) * torch.stack([upsample(mask, height, width) for mask in averages]).sum(0)

    previous = {(i, ratio): mask for i, mask in enumerate(benchmarks) for ratio in settings.ratios}
    for level in levels:
        shapes = [mask_shape(auxiliary.size, height, width) for auxiliary in level]
        start = [upsample(benchmarks[auxiliary.base], *shape) for auxiliary, shape in zip(level, shapes, strict=True)]  # Eq. 7
        guides = [upsample(previous[auxiliary.base, auxiliary.ratio], *shape) for auxiliary, shape in zip(level, shapes, strict=True)]
        optimized, averages = optimize_masks(start, guides, consistency, settings)  # Eq. 8
        for auxiliary, mask, average in zip(level, optimized, averages, strict=True):
            stacked = stacked + upsample(average, height, width)  # Eq. 9
            previous[auxiliary.base, auxiliary.ratio] = mask
    if settings.blur:
        stacked = Upsampling((height, width), height, width, stacked, settings.blur * min(height, width))(stacked)
    return keep_top(stacked, settings.keep_fraction)  # Eq. 10


def dm_passes(settings: DMSettings, height: int, width: int) -> int:
    """Return the passes per image of one DM block."""
    passes_per_step = 2 if settings.removal else 1
    trained = masks_trained(settings.sizes, settings.ratios, height, width, settings.max_size)
    return trained * settings.steps * passes_per_step
