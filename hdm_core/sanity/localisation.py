"""Localisation against the controls: energy in the annotated region."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hdm_core.metrics.localisation import proportion
from hdm_core.sanity.maps import Maps

LOCALISATION = "localisation"


def advantages(maps: Maps, controls: Mapping[str, Maps], regions: Tensor) -> tuple[str, Tensor]:
    """Compare the proportion of a method with that of the best control.

    The best control is the one with the largest mean proportion over the images.

    Args:
        controls: maps of the same images by control, at least one.
        regions: (B, H, W) bool, empty where an image has none.

    Returns:
        The best control, and the method's proportion minus its, (B,), NaN where a map or a region is missing.
    """
    of_controls = {name: _proportions(each, regions) for name, each in controls.items()}
    best = max(of_controls, key=lambda name: float(of_controls[name].nanmean().nan_to_num(-1.0)))
    return best, _proportions(maps, regions) - of_controls[best]


def _proportions(maps: Maps, regions: Tensor) -> Tensor:
    """Return the proportions in float64; NaN without a map or a region."""
    found = proportion(torch.from_numpy(maps.values).double(), regions.cpu())
    return torch.where(torch.from_numpy(maps.is_ok), found, torch.nan)
