"""Cache of encoded pictures, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable


class PictureCache:
    """Pictures by key; those that were used longest ago are dropped first.

    Args:
        limit: bytes of all pictures together.
    """

    def __init__(self, limit: int = 64 << 20) -> None:
        self._limit, self._bytes = limit, 0
        self._pictures: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the picture of a key, made at its first use."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        picture = make()  # outside the lock, so that pictures are drawn side by side
        with self._lock:
            if key not in self._pictures and len(picture) <= self._limit:
                self._pictures[key] = picture
                self._bytes += len(picture)
                while self._bytes > self._limit:
                    self._bytes -= len(self._pictures.popitem(last=False)[1])
        return picture
