"""Complexity of a map: the entropy of its pixels' shares.

Bhatt, Weller, Moura, IJCAI 2020.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric
from hdm_core.metrics.per_part import of_maps


def entropy(maps: Tensor) -> Tensor:
    """Return the entropy of each pixel's share of the map's sum, (n,) in nats.

    It is between 0, if one pixel has all, and ln(H W), if all are equal, as Quantus' Complexity.

    Args:
        maps: (n, H, W), not negative.
    """
    pixels = maps.flatten(1).double()
    shares = pixels / pixels.sum(1, keepdim=True)
    terms: Tensor = torch.special.xlogy(shares, shares)
    return -terms.sum(1)


COMPLEXITY = Metric(
    id="complexity",
    title="complexity",
    definition="entropy of the pixels' shares of the map's total, in nats: 0 if one has all, ln(H W) if all are equal",
    lower_is_better=True,
    map_only=True,
    compute=of_maps(entropy),
    value_range=(0.0, math.inf),
    on_request=True,
)
