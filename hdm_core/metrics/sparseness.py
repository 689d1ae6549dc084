"""Sparseness of a map: the Gini index of its pixels (Chalasani et al., ICML 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric
from hdm_core.metrics.per_part import of_maps


def gini(maps: Tensor) -> Tensor:
    """Return the Gini index of maps (n, H, W), not negative -> (n,) in [0, 1).

    It is sum_i (2 i - P - 1) m_i / (P sum_i m_i) over the P pixels in ascending order, i = 1 .. P. Quantus' Sparseness adds 1e-7 to every
    pixel.
    """
    ascending = maps.flatten(1).double().sort(1).values
    pixels = ascending.shape[1]
    weights = 2 * torch.arange(1, pixels + 1, device=maps.device, dtype=torch.float64) - pixels - 1
    return (ascending * weights).sum(1) / (pixels * ascending.sum(1))


SPARSENESS = Metric(
    id="sparseness",
    title="sparseness",
    definition="Gini index of the map's pixels: 0 if all are equal, near 1 if one has all",
    lower_is_better=False,
    map_only=True,
    compute=of_maps(gini),
    on_request=True,
)
