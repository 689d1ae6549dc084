"""Pointing game: whether the most salient pixel hits the region.

Zhang et al., ECCV 2016: a hit may be 15 pixels off, in images whose shorter side has 224 here.
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from hdm_core.metrics.base import Metric
from hdm_core.metrics.per_part import of_regions
from hdm_core.metrics.pixels import share

_TOLERANCE, _SIDE = 15, 224


def dilated(regions: Tensor, radius: int) -> Tensor:
    """Return the pixels within `radius` of a region's, (n, H, W) bool twice.

    Distances are Euclidean, between the pixels' centres.
    """
    height, width = regions.shape[-2:]
    # Row by row of the disc, by running counts: a convolution with its 31 x 31 pixels takes a second per image of 224 pixels on one core.
    count = F.pad(regions, (radius + 1, radius, radius, radius)).cumsum(2, dtype=torch.int32)
    near = torch.zeros_like(regions)
    for offset in range(-radius, radius + 1):
        reach = isqrt(radius**2 - offset**2)
        rows = count[:, radius + offset : radius + offset + height]
        first, last = radius - reach, radius + 1 + reach
        near |= rows[:, :, last : last + width] > rows[:, :, first : first + width]
    return near


def pointing_game(maps: Tensor, regions: Tensor) -> Tensor:
    """Return 1 for a hit, else 0, (n,); of equal maxima the share that hits.

    Args:
        maps: (n, H, W).
        regions: (n, H, W) bool.
    """
    near = dilated(regions, share(min(maps.shape[-2:]), _TOLERANCE, _SIDE))
    highest = maps == maps.amax((1, 2), keepdim=True)
    return (highest & near).sum((1, 2)) / highest.sum((1, 2))


POINTING_GAME = Metric(
    id="pointing_game",
    title="pointing",
    definition="share of the images whose most important pixel lies in the annotated region or up to 15/224 of the shorter side beside it",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=of_regions(pointing_game, needs_region=True),
    on_request=True,
)
