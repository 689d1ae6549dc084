"""Metrics of maps and regions alone, a part of the maps at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hdm_core.metrics.base import MetricInput, ranks_pixels


def of_maps(compute: Callable[[Tensor], Tensor]) -> Callable[[MetricInput], Tensor]:
    """Make `Metric.compute` of a function of maps (n, H, W) -> (n,).

    A map that is constant or has a NaN gets NaN: no pixel is more salient than another.
    """
    return of_regions(lambda maps, regions: compute(maps))


def of_regions(compute: Callable[[Tensor, Tensor], Tensor], needs_region: bool = False) -> Callable[[MetricInput], Tensor]:
    """Make `Metric.compute` of a function of maps and regions (n, H, W) -> (n,).

    A map that is constant or has a NaN gets NaN. Sorting all maps of a run's methods at once, in float64 or with int64 ranks, would need
    much memory.

    Args:
        needs_region: a map whose image has no region gets NaN as well.
    """

    def of_all(measured: MetricInput) -> Tensor:
        parts = zip(torch.split(measured.maps, measured.batch), torch.split(measured.index, measured.batch), strict=True)
        return torch.cat([of_part(maps, measured.regions[index]) for maps, index in parts])

    def of_part(maps: Tensor, regions: Tensor) -> Tensor:
        applies = ranks_pixels(maps)
        if needs_region:
            applies &= regions.flatten(1).any(1)
        return torch.where(applies, compute(maps, regions).to(maps.dtype), torch.nan)

    return of_all
