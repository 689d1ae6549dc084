"""A metric from outside: the pointing game without a tolerance."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core import Metric, MetricInput


def _hits(measured: MetricInput) -> Tensor:
    regions = measured.map_regions.flatten(1)
    peak = measured.maps.flatten(1).argmax(1, keepdim=True)
    return torch.where(regions.any(1), regions.gather(1, peak)[:, 0].float(), torch.nan)


PEAK_INSIDE = Metric(
    id="peak_inside",
    title="peak",
    definition="share of the images whose most salient pixel lies inside the annotated region",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=_hits,
)
