"""Images whose maps look alike: cosine of the maps pooled to 8 x 8 cells."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.report.gallery import evenly_spaced
from pipeline.runs.maps import read_maps
from pipeline.view.maps import Maps

MOST_MAPS = 2048  # that are compared; of a larger run whole shards, evenly spaced
CELLS = 8

Pooled = tuple[NDArray[np.int64], NDArray[np.float32]]


class Similar:
    """Pooled maps of a run by method, read at the first use of a method.

    Args:
        shard_size: images per shard.
        images: number of the run's images.
    """

    def __init__(self, maps: Maps, shard_size: int, images: int) -> None:
        self._maps, self._size, self._images = maps, shard_size, images
        self._pooled: dict[str, tuple[frozenset[int], Pooled]] = {}
        self._lock = threading.Lock()

    def nearest(self, method: str, row: int, shards: Sequence[int], limit: int = 8) -> tuple[list[tuple[int, float]], int]:
        """Return the images with the most similar maps, and the number compared.

        Args:
            shards: the committed ones.

        Returns:
            (row, cosine of the pooled maps minus their means) of each, the most similar first, and the number of maps.
        """
        rows, vectors = self._read(method, shards)
        (own,) = pooled(self._maps.read(method, row)[None])
        cosine = vectors @ own
        order = [place for place in np.argsort(-cosine, kind="stable").tolist() if rows[place] != row and np.isfinite(cosine[place])]
        return [(int(rows[place]), float(cosine[place])) for place in order[:limit]], len(rows)

    def _read(self, method: str, shards: Sequence[int]) -> Pooled:
        chosen = frozenset(evenly_spaced(sorted(shards), max(1, MOST_MAPS // self._size)))
        with self._lock:
            known = self._pooled.get(method)
            if known is None or known[0] != chosen:
                array = self._maps.array(method)
                parts = []
                for shard in sorted(chosen):
                    rows = np.arange(shard * self._size, min((shard + 1) * self._size, self._images))[:MOST_MAPS]
                    parts.append((rows, pooled(read_maps(array, rows).astype(np.float32))))
                both = np.concatenate([rows for rows, _ in parts]), np.concatenate([vectors for _, vectors in parts])
                known = self._pooled[method] = chosen, both
            return known[1]


def pooled(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pool maps (N, H, W) to vectors (N, 64) of length 1 with mean 0.

    Flat maps have NaN. Means are subtracted, since maps are not negative and any two would be similar.
    """
    cells = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(maps)[:, None], CELLS).flatten(1).numpy()
    centred = cells - cells.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    vectors: NDArray[np.float32] = np.where(length > 1e-6, centred / np.maximum(length, 1e-6), np.nan).astype(np.float32)
    return vectors
