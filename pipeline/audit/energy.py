"""Energy of a run's maps by cell: each map's total in a grid over the image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.audit.settings import AuditSettings
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array, read_maps

GRID = 8  # cells along a side

# Maps that are read at once: those of 64 images of 224 pixels have 6 MB.
_BATCH = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Energies:
    """Energy by cell of sampled maps of one method.

    Attributes:
        rows: (N,), images, rising.
        classes: (N,), names of the explained classes.
        cells: (N, GRID * GRID), shares of a map's total, which sum to 1.
        sizes: class name -> images of the class in the run, with a map.
        shape: height and width of the maps.
    """

    rows: NDArray[np.int64]
    classes: NDArray[np.object_]
    cells: Floats
    sizes: dict[str, int]
    shape: tuple[int, int]

    def of(self, name: str) -> NDArray[np.bool_]:
        """Return which of the maps explain a class."""
        mask: NDArray[np.bool_] = self.classes == name
        return mask


def read_energies(store: RunStore, method: str, settings: AuditSettings, on_read: Callable[[int], None]) -> Energies:
    """Read a sample of a method's maps, at most `per_class` of each class.

    Of the records only four columns are read, one shard at a time, and of the maps a few numbers stay in memory.

    Args:
        on_read: called with the number of maps read, after every batch.
    """
    rows_by_class: dict[str, list[NDArray[np.int64]]] = defaultdict(list)
    for part in store.record_parts(["row", "method", "rank", "status", "target_name"]):
        chosen = part.filter(pc.and_(pc.equal(part["method"], method), pc.and_(pc.equal(part["rank"], 0), pc.equal(part["status"], "ok"))))
        for name, rows in _by_class(chosen):
            rows_by_class[name].append(rows)
    rng = np.random.default_rng(settings.seed)
    sampled = {}
    sizes = {}
    for name in sorted(rows_by_class):
        rows = np.concatenate(rows_by_class[name])
        sizes[name] = len(rows)
        sampled[name] = rows if len(rows) <= settings.per_class else rng.choice(rows, settings.per_class, replace=False)
    array = open_array(store.storage.zarr("maps.zarr"), method)
    shape = int(array.shape[-2]), int(array.shape[-1])
    if not sampled:
        return Energies(np.empty(0, np.int64), np.empty(0, object), np.empty((0, GRID**2)), {}, shape)
    rows = np.concatenate(list(sampled.values()))
    names = np.array([name for name, of_class in sampled.items() for _ in of_class], dtype=object)
    order = np.argsort(rows, kind="stable")
    rows, names = rows[order], names[order]
    cells = np.empty((len(rows), GRID**2))
    for start in range(0, len(rows), _BATCH):
        part_rows = rows[start : start + _BATCH]
        cells[start : start + _BATCH] = cell_energies(read_maps(array, part_rows))
        on_read(len(part_rows))
    return Energies(rows, names, cells, sizes, shape)


def cell_energies(maps: NDArray[np.floating]) -> Floats:
    """Return the share of each map's total by cell.

    Args:
        maps: (N, H, W), not negative and not all zeros.

    Returns:
        (N, GRID * GRID), in row order.
    """
    height, width = maps.shape[-2:]
    tops, lefts = cell_edges(height)[:-1], cell_edges(width)[:-1]
    sums = np.add.reduceat(np.add.reduceat(maps.astype(np.float64), tops, axis=1), lefts, axis=2)
    flat = sums.reshape(len(maps), -1)
    shares: Floats = flat / flat.sum(1, keepdims=True)
    return shares


def cell_edges(side: int) -> NDArray[np.int64]:
    """Return the GRID + 1 pixels at which cells begin and end along a side."""
    return np.arange(GRID + 1) * side // GRID


def _by_class(records: pa.Table) -> Iterator[tuple[str, NDArray[np.int64]]]:
    names = records["target_name"].to_numpy(zero_copy_only=False)
    rows = records["row"].to_numpy()
    for name in dict.fromkeys(names.tolist()):
        yield str(name), rows[names == name]
