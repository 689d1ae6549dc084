"""A map as colours: matplotlib's "jet" over [0, 1], laid on the picture that the network saw."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

_COLOURS = colormaps["jet"]
_OPACITY = 0.5


def overlay(view: Image.Image, values: NDArray[np.floating]) -> Image.Image:
    """The map as a half-transparent heatmap over the picture: dark blue is 0 and dark red is 1, whatever the map's own range.

    Args:
        view: the picture that the network saw, W x H.
        values: the map (H, W) in [0, 1].

    Raises:
        ValueError: if the map has another size than the picture.
    """
    if values.shape != (view.height, view.width):
        raise ValueError(f"a map of shape {values.shape} does not fit a picture of {view.width} x {view.height} pixels")
    heat = Image.fromarray(_COLOURS(values, bytes=True)).convert("RGB")
    return Image.blend(view.convert("RGB"), heat, _OPACITY)


def legend(stops: int = 9) -> list[str]:
    """The colours of equally spaced values from 0 to 1, as CSS writes them."""
    return [to_hex(_COLOURS(value)) for value in np.linspace(0, 1, stops)]
