"""Heatmaps of maps, blended with an image, and pictures of signed maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_OPACITY = 0.5


def colour(values: NDArray[np.floating]) -> Image.Image:
    """Return a map (H, W) in [0, 1] as an RGB image.

    Dark blue is 0 and dark red is 1, whatever the map's own range.
    """
    from matplotlib import colormaps

    return Image.fromarray(colormaps["jet"](values, bytes=True)).convert("RGB")


def overlay(image: Image.Image, values: NDArray[np.floating]) -> Image.Image:
    """Draw a map as a half-transparent heatmap over an image.

    Args:
        image: the crop that the network saw, or the whole photograph, W x H.
        values: the map (H, W) in [0, 1]; dark blue is 0 and dark red is 1, whatever the map's own range. The image stays as it is where the
            map is NaN, as `on_photograph` returns outside the crop.

    Raises:
        ValueError: if the map has another size than the image.
    """
    if values.shape != (image.height, image.width):
        raise ValueError(f"a map of shape {values.shape} does not fit an image of {image.width} x {image.height} pixels")
    plain = image.convert("RGB")
    seen = np.isfinite(values)
    if seen.all():
        return Image.blend(plain, colour(values), _OPACITY)
    blended = Image.blend(plain, colour(np.where(seen, values, 0)), _OPACITY)
    return Image.composite(blended, plain, Image.fromarray(seen))


def layer(values: NDArray[np.floating]) -> Image.Image:
    """Return a map's colours alone as an RGBA image, to lay over a photograph.

    Args:
        values: the map (H, W) in [0, 1]; NaN becomes fully transparent, everything else half-transparent.
    """
    seen = np.isfinite(values)
    coloured = colour(np.where(seen, values, 0))
    coloured.putalpha(Image.fromarray(np.where(seen, round(255 * _OPACITY), 0).astype(np.uint8)))
    return coloured


def diverging(values: NDArray[np.floating]) -> Image.Image:
    """Return a signed map (H, W) in [-1, 1] as an RGB image.

    Red is 1, white is 0 and blue is -1, with linear steps between them.
    """
    fade = 1 - np.abs(values).astype(np.float64).clip(0, 1)
    positive, negative = np.where(values < 0, fade, 1.0), np.where(values > 0, fade, 1.0)
    return Image.fromarray((np.stack([positive, fade, negative], -1) * 255).round().astype(np.uint8))
