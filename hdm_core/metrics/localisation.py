"""Proportion: how much of a map's energy falls inside the ground truth (Section 4.6 of the paper)."""

from __future__ import annotations

import torch
from torch import Tensor


def proportion(maps: Tensor, regions: Tensor) -> Tensor:
    """Energy inside the region over all energy, (B,) in [0, 1]; NaN where the region is empty or the map has no energy.

    Args:
        maps: (B, H, W), not negative.
        regions: (B, H, W) bool.
    """
    energy = maps.double()
    inside = (energy * regions).sum((1, 2))
    share = inside / energy.sum((1, 2))
    return torch.where(regions.flatten(1).any(1), share, torch.nan).to(maps.dtype)
