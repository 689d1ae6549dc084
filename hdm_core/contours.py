"""Contours of a map in the photograph: polygons of what exceeds a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray

from hdm_core.geometry import Box, Geometry

Ring = Sequence[Sequence[float]] | NDArray[np.floating]
Polygon = list[list[list[float]]]
Floats = NDArray[np.float64]

_DECIMALS = 2  # of coordinates: a hundredth of a pixel
_BEYOND = 1e-5  # pixels from the border to a frame below every level, which closes rings there
_BELOW = -1e6


def contours(values: NDArray[np.floating], box: Box, size: tuple[int, int], level: float) -> list[Polygon]:
    """Return the polygons of the photograph where a map is at least `level`.

    Marching squares with linear interpolation between the centres of the map's pixels (contourpy). Coordinates are those of QuPath and of
    images: x to the right, y down, pixel i covers i to i + 1. A region at the border of what the network saw ends at that border.

    Args:
        values: (h, w), the map.
        box: (left, top, right, bottom), the input's edges in pixels of the photograph.
        size: width and height of the photograph.
        level: threshold.

    Returns:
        Polygons as in GeoJSON: each a list of closed rings of [x, y], the outer one first, then its holes. Outer rings have a positive
        area by the shoelace formula, holes a negative one (RFC 7946, with y as it is).
    """
    left, top, right, bottom = Geometry(box, (values.shape[0], values.shape[1])).visible(*size)
    if right <= left or bottom <= top:
        return []
    x, across = _nodes(box[0], box[2], values.shape[1], left, right)
    y, down = _nodes(box[1], box[3], values.shape[0], top, bottom)
    framed = np.pad(down @ np.asarray(values, np.float64) @ across.T, 1, constant_values=_BELOW)
    generator = contour_generator(_framed(x), _framed(y), framed, fill_type=FillType.OuterOffset)
    filled: Any = generator.filled(level, np.inf)
    found = []
    for points, offsets in zip(*filled, strict=True):
        inside = np.clip(points, (left, top), (right, bottom)).round(_DECIMALS)
        rings = [_without_repeats(inside[start:end]) for start, end in pairwise(offsets)]
        if abs(ring_area(rings[0])) > 0:
            kept = [(ring, number == 0) for number, ring in enumerate(rings) if abs(ring_area(ring)) > 0]
            found.append([(ring if (ring_area(ring) > 0) == outer else ring[::-1]).tolist() for ring, outer in kept])
    return found


def ring_area(ring: Ring) -> float:
    """Return a closed ring's area in square pixels, by the shoelace formula.

    It is negative for a ring in the other direction.
    """
    x, y = np.asarray(ring, np.float64).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def polygon_area(polygon: Sequence[Ring]) -> float:
    """Return a polygon's area in square pixels, without its holes."""
    return sum(map(ring_area, polygon))


def _nodes(start: float, end: float, length: int, first: float, last: float) -> tuple[Floats, Floats]:
    """Return the grid's coordinates along one axis, and its weights.

    Args:
        start: first edge of the input, in pixels of the photograph.
        end: its other edge.
        length: pixels of the map.
        first: where the visible part begins.
        last: where it ends.

    Returns:
        (n,), the centres of the map's pixels that are visible, and both borders; and weights (n, length) of the map's pixels there.
    """
    centres = start + (np.arange(length) + 0.5) * (end - start) / length
    nodes = np.concatenate([[first], centres[(centres > first + _BEYOND) & (centres < last - _BEYOND)], [last]])
    return nodes, np.stack([np.interp(nodes, centres, unit) for unit in np.eye(length)], axis=1)


def _framed(nodes: Floats) -> Floats:
    return np.concatenate([[nodes[0] - _BEYOND], nodes, [nodes[-1] + _BEYOND]])


def _without_repeats(ring: Floats) -> Floats:
    """Return a ring without the points that rounding has made equal to the one before."""
    repeated = np.zeros(len(ring), bool)
    repeated[1:] = (ring[1:] == ring[:-1]).all(1)
    kept: Floats = ring[~repeated]
    return kept
