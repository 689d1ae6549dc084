"""Pixels ranked by the map as a search for those of the region."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric
from hdm_core.metrics.per_part import of_regions
from hdm_core.metrics.pixels import share
from hdm_core.metrics.ranking import Ranking, top_weights

_TOP = 15  # per cent of the pixels


def average_precision(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the area under precision over recall, (n,), in steps.

    It is the mean precision at the thresholds of the region's pixels; equal pixels pass a threshold together, as in scikit-learn's
    `average_precision_score`.

    Args:
        maps: (n, H, W).
        regions: (n, H, W) bool.
    """
    ranking = Ranking.of(maps, regions)
    precision = ranking.inside_at_least.double() / ranking.at_least
    return (precision * ranking.inside).sum(1) / ranking.size[:, 0]


def rank_accuracy(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the share of the K most salient pixels that lie inside, (n,).

    K is the region's size: relevance rank accuracy, Arras, Osman, Samek, Information Fusion 2022.
    """
    size = regions.sum((1, 2))
    return (top_weights(maps, size) * regions).sum((1, 2)) / size


def top_energy(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the share inside of the energy of the top 15% of the pixels, (n,)."""
    pixels = maps[0].numel() if len(maps) else 0
    count = torch.full((len(maps),), max(1, share(pixels, _TOP, 100)), device=maps.device)
    energy = top_weights(maps, count) * maps
    return (energy * regions).sum((1, 2)) / energy.sum((1, 2))


AVERAGE_PRECISION = Metric(
    id="average_precision",
    title="AP",
    definition="average precision of the pixels, ranked by the map, as a search for those of the annotated region",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=of_regions(average_precision, needs_region=True),
    on_request=True,
)
RANK_ACCURACY = Metric(
    id="rank_accuracy",
    title="rank accuracy",
    definition="share of the most important pixels, as many as the annotated region has, that lie inside it",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=of_regions(rank_accuracy, needs_region=True),
    on_request=True,
)
TOP15_ENERGY = Metric(
    id="top15_energy",
    title="top 15%",
    definition="share of the total of the most important 15% of the pixels that lies inside the annotated region",
    lower_is_better=False,
    needs_region=True,
    map_only=True,
    compute=of_regions(top_energy, needs_region=True),
    on_request=True,
)
