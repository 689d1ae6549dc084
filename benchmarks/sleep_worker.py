"""Worker of `python -m benchmarks pool` that sleeps instead of explaining.

It does not import torch, so many workers fit on a small machine.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SimulatedReport:
    """Simulated `ShardReport` with start time and process id.

    Attributes:
        shard, images: index of the shard and number of its images.
        started: start on the machine's monotonic clock, which its processes share, in seconds.
        seconds: duration of the work.
        process_id: the worker's process.
        memory_bytes: resident memory of that process after the work.
        device, held, passes, lines, device_failure: as in `ShardReport`.
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
    device_failure: None = None

    @classmethod
    def since(cls, started: float, shard: int, images: int) -> SimulatedReport:
        """Build the report of a shard that ends now."""
        return cls(shard, images, started, time.monotonic() - started, os.getpid(), resident_bytes())


class SleepWorker:
    """Ray actor that sleeps for a fixed time per image."""

    def __init__(self, image_seconds: float) -> None:
        self._image_seconds = image_seconds

    def ready(self) -> str:
        """Return the device, as `Worker.ready` does."""
        return "none"

    def passes(self) -> int:
        """Return 0 passes; the driver polls them as of a `Worker`."""
        return 0

    def run(self, shard: int, images: int) -> SimulatedReport:
        """Sleep for the simulated duration of the shard."""
        started = time.monotonic()
        time.sleep(images * self._image_seconds)
        return SimulatedReport.since(started, shard, images)


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
