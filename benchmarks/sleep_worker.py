"""A worker of `python -m benchmarks pool` whose work is a sleep. It loads no torch: many of them fit a small machine."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SimulatedReport:
    """What a pretended worker says of a shard: a `ShardReport`, and when and by whom it was done.

    Attributes:
        began: by the machine's monotonic clock, which its processes share.
        worker: the number of its process.
        memory: bytes that the process held afterwards.
    """

    shard: int
    images: int
    started: float
    seconds: float
    process_id: int
    memory_bytes: int
    device: str = "none"
    held: None = None
    passes: int = 0
    lines: tuple[()] = ()

    @classmethod
    def since(cls, began: float, shard: int, images: int) -> SimulatedReport:
        """The report of a shard that ends now."""
        return cls(shard, images, began, time.monotonic() - began, os.getpid(), resident_bytes())


class SleepWorker:
    """Sleeps for as long as a shard's images would take."""

    def __init__(self, image_seconds: float) -> None:
        self._image_seconds = image_seconds

    def ready(self) -> str:
        """As of a worker."""
        return "none"

    def passes(self) -> int:
        """As of a worker, whose passes the driver asks for all the time."""
        return 0

    def run(self, shard: int, images: int) -> SimulatedReport:
        """Takes its time."""
        began = time.monotonic()
        time.sleep(images * self._image_seconds)
        return SimulatedReport.since(began, shard, images)


def resident_bytes() -> int:
    """Bytes of memory that this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
