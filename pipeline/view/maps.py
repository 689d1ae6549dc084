"""Maps of a run, read one at a time through arrays that stay open."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.runs import RunStore
from pipeline.runs.maps import dimension_names, open_array


class Maps:
    """Arrays of maps.zarr, each opened once."""

    def __init__(self, store: RunStore) -> None:
        self._store = store.storage.zarr("maps.zarr")
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._lock = threading.Lock()

    def array(self, name: str) -> zarr.Array[Any]:
        """Return an array by name.

        Raises:
            KeyError: if the run has none.
        """
        with self._lock:
            if name not in self._arrays:
                self._arrays[name] = open_array(self._store, name)
            return self._arrays[name]

    def read(self, name: str, row: int, rank: int = 0) -> NDArray[np.float32]:
        """Read one image's map (H, W), or its stages or pieces (S, H, W), of a rank."""
        array = self.array(name)
        index = (row, rank) if "rank" in dimension_names(name, array.ndim) else row
        return np.asarray(array[index], dtype=np.float32)

    def ranks(self, name: str) -> int:
        """Return the number of classes that are explained per image."""
        array = self.array(name)
        return int(array.shape[1]) if "rank" in dimension_names(name, array.ndim) else 1
