"""Dynamic masks (DM): Section 3.2 of the paper, Eq. 6 to 10."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import Upsampling, auxiliary_masks, keep_top, mask_shape, masks_trained, normalise, upsample
from hdm_core.masking.optimizer import optimize_masks
from hdm_core.settings import DMSettings

# A benchmark mask that starts from a map in [0, 1] keeps away from the ends, at which a clamped mask has no gradient.
_LOWEST, _RANGE = 0.15, 0.7

Member = tuple[ConsistencyLoss, DMSettings]  # loss and settings of one DM block


def ensemble_mask(members: Sequence[Member], start: Tensor | None = None) -> Tensor:
    """Compute M_b (B, 1, H, W) in [0, 1] of one DM block, or N of the sum of several.

    Args:
        members: losses of the same images, with the settings of their blocks.
        start: as of `dynamic_mask`.
    """
    masks = [dynamic_mask(consistency, settings, start) for consistency, settings in members]
    return masks[0] if len(masks) == 1 else normalise(torch.stack(masks).sum(0))


def dynamic_mask(consistency: ConsistencyLoss, settings: DMSettings, start: Tensor | None = None) -> Tensor:
    """Compute Q(X), one DM block: the mask M_b (B, 1, H, W) in [0, 1].

    X are the images that `consistency` holds. With a relative J the mask of an image that has no more evidence than the baseline is 0.

    Args:
        start: maps (B, 1, H, W) in [0, 1] that benchmark masks start from; None, and a map that is flat, for tau.

    Raises:
        ValueError: if a mask size is larger than the image.
    """
    height, width = consistency.contrast.shape[-2:]
    levels = auxiliary_masks(settings.sizes, settings.ratios, height, width, settings.max_size)
    like = consistency.contrast

    shapes = [mask_shape(size, height, width) for size in settings.sizes]
    initial = [_initial_masks(start, shape, settings.tau, like) for shape in shapes]
    benchmarks, averages = optimize_masks(initial, [None] * len(initial), consistency, settings)  # Eq. 6
    # c_j^0(i) = d_i: a benchmark mask enters the sum of Eq. 9 once for every ratio.
    stacked = len(settings.ratios) * torch.stack([upsample(mask, height, width) for mask in averages]).sum(0)

    previous = {(i, ratio): mask for i, mask in enumerate(benchmarks) for ratio in settings.ratios}
    for level in levels:
        shapes = [mask_shape(auxiliary.size, height, width) for auxiliary in level]
        initial = [upsample(benchmarks[auxiliary.base], *shape) for auxiliary, shape in zip(level, shapes, strict=True)]  # Eq. 7
        guides = [upsample(previous[auxiliary.base, auxiliary.ratio], *shape) for auxiliary, shape in zip(level, shapes, strict=True)]
        optimized, averages = optimize_masks(initial, guides, consistency, settings)  # Eq. 8
        for auxiliary, mask, average in zip(level, optimized, averages, strict=True):
            stacked = stacked + upsample(average, height, width)  # Eq. 9
            previous[auxiliary.base, auxiliary.ratio] = mask
    if settings.blur:
        stacked = Upsampling((height, width), height, width, stacked, settings.blur * min(height, width))(stacked)
    mask = keep_top(stacked, settings.keep_fraction)  # Eq. 10
    if settings.relative:  # without evidence J has no unit, and the mask would be what it started from
        return torch.where((consistency.reference == consistency.baseline_scores)[:, None, None, None], 0.0, mask)
    return mask


def _initial_masks(start: Tensor | None, shape: tuple[int, int], tau: float, like: Tensor) -> Tensor:
    """Return benchmark masks (B, 1, a, b) to start from."""
    constant = torch.full((len(like), 1, *shape), tau, dtype=like.dtype, device=like.device)
    if start is None:
        return constant
    varies = start.amax((2, 3), keepdim=True) != start.amin((2, 3), keepdim=True)
    cells: Tensor = F.interpolate(_LOWEST + _RANGE * start, size=shape, mode="bilinear", align_corners=False, antialias=True)
    return torch.where(varies, cells, constant)


def dm_passes(settings: DMSettings, height: int, width: int) -> int:
    """Return the passes per image of one DM block, or of all in an ensemble."""
    passes = 0
    for member in settings.members():
        passes_per_step = 2 if member.removal else 1
        passes += masks_trained(member.sizes, member.ratios, height, width, member.max_size) * member.steps * passes_per_step
    return passes
