"""Intersection over union of a thresholded map and the region."""

from __future__ import annotations

from torch import Tensor

from hdm_core.metrics.base import Metric
from hdm_core.metrics.per_part import of_regions
from hdm_core.metrics.ranking import Ranking

_THRESHOLD = 0.5  # of the map's maximum


def iou_best(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the largest intersection over union of all thresholds, (n,).

    Args:
        maps: (n, H, W).
        regions: (n, H, W) bool.
    """
    ranking = Ranking.of(maps, regions)
    union = ranking.at_least + ranking.size - ranking.inside_at_least
    return (ranking.inside_at_least / union).amax(1)


def iou_fixed(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the same for the pixels of at least half of the map's maximum, (n,)."""
    shown = maps >= _THRESHOLD * maps.amax((1, 2), keepdim=True)
    return (shown & regions).sum((1, 2)) / (shown | regions).sum((1, 2))


IOU_BEST = Metric(
    id="iou_best",
    title="IoU, best",
    definition="intersection over union of the annotated region and the pixels above the threshold that suits the image best",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=of_regions(iou_best, needs_region=True),
    on_request=True,
)
IOU_FIXED = Metric(
    id="iou_fixed",
    title="IoU, half",
    definition="intersection over union of the annotated region and the pixels of at least half of the map's maximum",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=of_regions(iou_fixed, needs_region=True),
    on_request=True,
)
