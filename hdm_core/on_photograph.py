"""Maps in the pixels of the photograph, through the geometry of the crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def on_photograph(values: NDArray[np.floating], box: Sequence[float], size: tuple[int, int]) -> Floats:
    """Resample a map of the network's input to the pixels of its photograph.

    Between the centres of the map's pixels the interpolation is linear, and beyond the outermost centres the map goes on unchanged. Where
    the photograph is smaller than the input, the triangle is as wide as a pixel of the photograph, so that every pixel of the map counts
    (Pillow's bilinear filter).

    Args:
        values: (h, w), the map.
        box: (left, top, right, bottom), the input's edges in pixels of the photograph, `Preprocess.crop_box` or the column `crop` of
            images.parquet.
        size: width and height of the result. For a smaller copy of the photograph, the box must be of the copy, see `scaled`.

    Returns:
        (height, width) float32; NaN where a pixel's centre lies outside the box: the network did not see it.
    """
    left, top, right, bottom = box
    width, height = size
    rows, first_row = _weights(height, top, bottom, values.shape[0])
    columns, first_column = _weights(width, left, right, values.shape[1])
    full = np.full((height, width), np.nan, np.float32)
    inside = rows @ np.asarray(values, np.float32) @ columns.T
    full[first_row : first_row + len(rows), first_column : first_column + len(columns)] = inside
    return full


def scaled(size: tuple[int, int], box: Sequence[float], longest: int | None) -> tuple[tuple[int, int], tuple[float, float, float, float]]:
    """Return a photograph's size and its box in a copy of limited size.

    Args:
        size: width and height of the photograph.
        box: (left, top, right, bottom) in pixels of the photograph.
        longest: the long side of the copy in pixels. None, and a photograph that is not longer, for no change.
    """
    left, top, right, bottom = map(float, box)
    width, height = size
    if longest is None or max(size) <= longest:
        return size, (left, top, right, bottom)
    ratio = longest / max(size)
    copy = max(1, round(width * ratio)), max(1, round(height * ratio))
    across, down = copy[0] / width, copy[1] / height
    return copy, (left * across, top * down, right * across, bottom * down)


def _weights(count: int, start: float, end: float, length: int) -> tuple[Floats, int]:
    """Return the weights (pixels, length) of a map's pixels along one axis.

    Args:
        count: pixels of the photograph.
        start: first edge of the box, in pixels of the photograph.
        end: its other edge.
        length: pixels of the map.

    Returns:
        One row per pixel of the photograph whose centre is inside, and the first of them.
    """
    centres = np.arange(count) + 0.5
    seen = np.flatnonzero((centres >= start) & (centres < end))
    scale = length / (end - start)  # pixels of the map per pixel of the photograph
    places = (centres[seen] - start) * scale - 0.5
    distances = np.abs(np.arange(length) - np.clip(places, 0, length - 1)[:, None])
    weights = np.clip(1 - distances / max(1.0, scale), 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32), int(seen[0]) if len(seen) else 0
