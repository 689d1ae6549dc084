"""Proportion: share of a map's energy inside the ground truth (Section 4.6)."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric


def proportion(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the energy inside the region over all energy, (B,) in [0, 1].

    It is NaN where the region is empty or the map has no energy.

    Args:
        maps: (B, H, W), not negative.
        regions: (B, H, W) bool.
    """
    energy = maps.double()
    inside = (energy * regions).sum((1, 2))
    share = inside / energy.sum((1, 2))
    return torch.where(regions.flatten(1).any(1), share, torch.nan).to(maps.dtype)


PROPORTION = Metric(
    id="proportion",
    title="proportion",
    definition="share of the map's total that lies inside the annotated region, a segmentation or else a box",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=lambda measured: proportion(measured.maps, measured.map_regions),
)
