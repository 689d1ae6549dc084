"""Metadata of OME-Zarr 0.5 on the maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VERSION = "0.5"
_SPACE = ("y", "x")


def ome_attributes(axes: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the attributes of the group of maps; empty if no array can be described.

    The group has one multiscale image per array, chosen by its name, with one scale. The format (OME-NGFF 0.5, multiscales and axes) allows
    one axis that is neither time nor space: that of the images. Arrays with a second one, for ranks, stages or pieces, are left out.
    A map's pixels are those of the network's input and have no unit.

    Args:
        axes: array name -> names of its axes.
    """
    images = [_multiscale(name, names) for name, names in axes.items() if len(names) == 3 and names[1:] == _SPACE]
    return {"ome": {"version": _VERSION, "multiscales": images}} if images else {}


def _multiscale(name: str, axes: tuple[str, ...]) -> dict[str, Any]:
    scale = {"type": "scale", "scale": [1.0] * len(axes)}
    return {
        "name": name,
        "axes": [{"name": axis, "type": "space"} if axis in _SPACE else {"name": axis} for axis in axes],
        "datasets": [{"path": name, "coordinateTransformations": [scale]}],
    }
