"""Heatmaps: maps in matplotlib's "jet" over [0, 1], blended with the image."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

_COLOURS = colormaps["jet"]
_OPACITY = 0.5


def overlay(image: Image.Image, values: NDArray[np.floating]) -> Image.Image:
    """Blend a map with an image as a half-transparent heatmap.

    Dark blue is 0 and dark red is 1; the map is not rescaled to its own range.

    Args:
        image: image that the network saw, W x H.
        values: map (H, W) in [0, 1].

    Raises:
        ValueError: if the sizes of map and image differ.
    """
    if values.shape != (image.height, image.width):
        raise ValueError(f"a map of shape {values.shape} does not fit an image of {image.width} x {image.height} pixels")
    heatmap = Image.fromarray(_COLOURS(values, bytes=True)).convert("RGB")
    return Image.blend(image.convert("RGB"), heatmap, _OPACITY)


def legend(stops: int = 9) -> list[str]:
    """Return the CSS colours of `stops` equally spaced values from 0 to 1."""
    return [to_hex(_COLOURS(value)) for value in np.linspace(0, 1, stops)]
