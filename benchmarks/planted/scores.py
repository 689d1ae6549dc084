"""Scores of maps against known evidence, one number per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pointing(maps: Tensor, evidence: Tensor) -> Tensor:
    """Score the pointing game: 1 where a map is largest inside the evidence.

    Of several equal maxima it is the share inside the evidence.

    Args:
        maps, evidence: (B, H, W), evidence bool.

    Returns:
        (B,) in [0, 1].
    """
    largest = maps == maps.amax((1, 2), keepdim=True)
    return (largest & evidence).sum((1, 2)) / largest.sum((1, 2))


def both_found(maps: Tensor, regions: Tensor, patch: int) -> Tensor:
    """Return 1 where both patches hold more of the map than any other square, (B,).

    The other squares are all those of the patches' size that touch neither patch. Sums over squares, not pixels, are compared: a grainy
    map is not penalised for its grain, and noise, which has large pixels everywhere, finds nothing. A distractor is such a square: a map
    that shows it as strongly has not found the evidence. A constant map finds nothing either.

    Args:
        maps: (B, H, W).
        regions: (B, 2, H, W) bool, squares of patch x patch pixels.
    """

    def sums(values: Tensor) -> Tensor:
        return F.avg_pool2d(values.double()[:, None], patch, stride=1)[:, 0] * patch**2

    held = (maps[:, None].double() * regions).sum((2, 3))
    disjoint = sums(regions.any(1)) == 0
    elsewhere = sums(maps).masked_fill(~disjoint, -torch.inf).amax((1, 2))
    # A margin above the rounding of equal sums.
    return (held.amin(1) > elsewhere + 1e-9 * patch**2).double()


def similarity(maps: Tensor, others: Tensor) -> Tensor:
    """Return Spearman's rank correlation of two maps, (B,); 0 where one is constant.

    Equal pixels share the mean of their ranks, so that the order of zeros in maps that are mostly zero does not count.

    Args:
        maps, others: (B, H, W).
    """
    one, other = (torch.stack([_ranks(pixels) for pixels in values.flatten(1)]) for values in (maps, others))
    scale = one.norm(dim=1) * other.norm(dim=1)
    return torch.where(scale > 0, (one * other).sum(1) / scale, 0.0)


def _ranks(pixels: Tensor) -> Tensor:
    """Return centred ranks with ties averaged, (n,) float64."""
    result: tuple[Tensor, Tensor, Tensor] = torch.unique(pixels, return_inverse=True, return_counts=True)
    _, inverse, counts = result
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse] - (len(pixels) + 1) / 2
