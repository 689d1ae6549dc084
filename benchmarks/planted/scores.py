"""Maps against known evidence, a number a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pointing(maps: Tensor, evidence: Tensor) -> Tensor:
    """The pointing game: 1 where a map is largest inside the evidence; of equal maxima the share inside. (B,) in [0, 1].

    Args:
        maps, evidence: (B, H, W), evidence bool.
    """
    largest = maps == maps.amax((1, 2), keepdim=True)
    return (largest & evidence).sum((1, 2)) / largest.sum((1, 2))


def both_found(maps: Tensor, regions: Tensor, patch: int) -> Tensor:
    """1 where both patches hold more of the map than any square of their size that touches neither, (B,).

    Squares, not pixels: a grainy map is not punished for its grain, and noise, which has some of the largest pixels everywhere, finds
    nothing. A distractor is such a square: who shows it as strongly has not found what decides. A constant map finds nothing either.

    Args:
        maps: (B, H, W).
        regions: (B, 2, H, W) bool, squares of patch x patch pixels.
    """

    def sums(values: Tensor) -> Tensor:
        return F.avg_pool2d(values.double()[:, None], patch, stride=1)[:, 0] * patch**2

    held = (maps[:, None].double() * regions).sum((2, 3))
    apart = sums(regions.any(1)) == 0
    elsewhere = sums(maps).masked_fill(~apart, -torch.inf).amax((1, 2))
    # More than rounding makes of equal sums.
    return (held.amin(1) > elsewhere + 1e-9 * patch**2).double()


def similarity(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation of the pixels of two maps, (B,) in [-1, 1]; 0 where one is constant.

    Equal pixels share the mean of their ranks: maps that are zero on much of the picture are not alike for the order of their zeros.

    Args:
        maps, others: (B, H, W).
    """
    one, other = (torch.stack([_ranks(pixels) for pixels in values.flatten(1)]) for values in (maps, others))
    scale = one.norm(dim=1) * other.norm(dim=1)
    return torch.where(scale > 0, (one * other).sum(1) / scale, 0.0)


def _ranks(pixels: Tensor) -> Tensor:
    """Ranks about their mean, ties averaged, (n,) float64."""
    found: tuple[Tensor, Tensor, Tensor] = torch.unique(pixels, return_inverse=True, return_counts=True)
    _, inverse, counts = found
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse] - (len(pixels) + 1) / 2
