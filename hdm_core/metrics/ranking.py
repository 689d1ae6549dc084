"""Pixels in descending order of a map, against a region."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """The P pixels of n maps, the most salient first; equal ones are a group.

    Attributes:
        inside: (n, P) bool, the pixel lies in the region.
        at_least: (n, P) int64, the number of pixels that are at least as salient, the whole group included.
        inside_at_least: (n, P) int64, how many of these lie in the region.
        size: (n, 1) int64, the region's pixels.
    """

    inside: Tensor
    at_least: Tensor
    inside_at_least: Tensor
    size: Tensor

    @classmethod
    def of(cls, maps: Tensor, regions: Tensor) -> Ranking:
        """Return the ranking of maps (n, H, W) against regions (n, H, W) bool."""
        descending, order = maps.flatten(1).sort(dim=1, descending=True, stable=True)
        inside = regions.flatten(1).gather(1, order)
        at_least = torch.searchsorted(-descending, -descending, right=True)
        # Counts are integers: CUDA's cumulative sum of floats is not deterministic. NaN, which has no place, is dealt with by the caller.
        last = (at_least - 1).clamp(0, inside.shape[1] - 1)
        return cls(inside, at_least, inside.long().cumsum(1).gather(1, last), inside.sum(1, keepdim=True))


def top_weights(maps: Tensor, count: Tensor) -> Tensor:
    """Return 1 for the `count` most salient pixels, else 0, (n, H, W) float64.

    Pixels that are equal at the limit share what is left of the count, so that no order among them decides.

    Args:
        maps: (n, H, W).
        count: (n,) int64, at least 1.
    """
    values = maps.flatten(1)
    limit = values.sort(1, descending=True).values.gather(1, (count - 1).clamp(min=0)[:, None])
    above, equal = values > limit, values == limit
    left = (count - above.sum(1)).double() / equal.sum(1)
    return (above + equal * left[:, None]).view(maps.shape)
