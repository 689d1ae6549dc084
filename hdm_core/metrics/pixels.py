"""The order of a map's pixels: exact counts, stable ties."""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(maps: Tensor) -> Tensor:
    """Return the pixels' ranks: maps (N, H, W) -> (N, H, W) int64.

    The most salient pixel has the rank 0.
    Ties go to the pixel that comes first in row order.
    """
    pixels = maps.flatten(1)
    order = pixels.argsort(dim=1, descending=True, stable=True)
    positions = torch.arange(pixels.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions).reshape(maps.shape)


def share(pixels: int, part: int, whole: int) -> int:
    """Return round(pixels * part / whole), halves up, in integers."""
    return (2 * part * pixels + whole) // (2 * whole)


def boundaries(pixels: int, points: int = 101) -> list[int]:
    """Return the number of pixels that each point of a curve has changed.

    It is round(i * pixels / (points - 1)) for i = 0 .. points - 1.
    """
    return [share(pixels, i, points - 1) for i in range(points)]
