"""Pixels of a suspected place: cells of the grid, made smaller where the maps are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.audit.energy import cell_edges
from pipeline.audit.finding import Box
from pipeline.audit.spatial import Suspicion, is_frame
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array, read_maps

_MAPS = 64  # of the class, and of others, that are averaged
_LEVEL = 0.5  # of the largest mean, that a pixel of the place has


def place_pixels(store: RunStore, method: str, suspicion: Suspicion, other_rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the pixels of a place, (H, W) bool.

    They are the bounding box of the pixels, in the place's cells and those beside them, at which the mean map of the class exceeds that of
    other classes by at least half of the largest excess; for a border all of its cells.

    Args:
        other_rows: images of other classes.
    """
    array = open_array(store.storage.zarr("maps.zarr"), method)
    height, width = array.shape[-2:]
    if is_frame(suspicion.cells):
        return _pixels(suspicion.cells, height, width)
    own, others = (_mean_map(read_maps(array, np.sort(rows[:_MAPS]))) for rows in (suspicion.rows, other_rows))
    excess = np.where(_pixels(ndimage.binary_dilation(suspicion.cells, np.ones((3, 3))), height, width), own - others, -np.inf)
    box = bounding_box(excess >= _LEVEL * excess.max())
    pixels = np.zeros((height, width), bool)
    pixels[box[1] : box[3], box[0] : box[2]] = True
    return pixels


def bounding_box(pixels: NDArray[np.bool_]) -> Box:
    """Return left, top, right and bottom of pixels, at least one of which is true."""
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _mean_map(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean of maps that are each divided by their total."""
    values = maps.astype(np.float64)
    mean: NDArray[np.float64] = (values / values.sum((1, 2), keepdims=True)).mean(0)
    return mean


def _pixels(cells: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """Enlarge cells to pixels."""
    rows, columns = (np.searchsorted(cell_edges(side)[1:], np.arange(side), side="right") for side in (height, width))
    enlarged: NDArray[np.bool_] = cells[np.ix_(rows, columns)]
    return enlarged
