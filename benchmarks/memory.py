"""Benchmark of memory: many calls of `explain` and `evaluate` in one process."""

from __future__ import annotations

import gc
import os
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdm_core import Classifier, evaluate, explain

# Methods of each kind with few passes: masks, random masks, gradients on the folded network and on the network itself, and a layer.
METHODS: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 1},
    "hdm": {"sizes": (4,), "ratios": (2,), "steps": 1},
    "rise": {"masks": 2},
    "gradient": {},
    "grad_cam": {},
}
# Calls of every kind before the first measurement, which fill caches.
_WARM_UP = 3


@dataclass(frozen=True)
class Memory:
    """Memory after a number of calls.

    Attributes:
        resident_mib: resident memory of the process.
        traced_mib: memory that Python allocated since the first measurement and still holds.
    """

    calls: int
    resident_mib: float
    traced_mib: float


@dataclass(frozen=True)
class MemoryResult:
    """Memory at start, middle and end; every other call is of `evaluate`."""

    network: str
    side: int
    images: int
    methods: tuple[str, ...]
    measurements: list[Memory]
    seconds: float
    torch: str = torch.__version__

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


def bench_memory(classifier: Classifier, images: Tensor, calls: int, progress: Callable[[str], None]) -> MemoryResult:
    """Measure memory before, halfway through and after many calls.

    Args:
        images: (B, C, H, W).
        progress: called with a line after each measurement.
    """
    begin = time.perf_counter()
    methods = cycle(METHODS.items())
    maps, targets = torch.zeros_like(images[:, 0]), torch.zeros(len(images), dtype=torch.int64)
    measurements: list[Memory] = []

    def run(first: int, last: int) -> None:
        nonlocal maps, targets
        for call in range(first, last):
            if call % 2:
                evaluate(classifier, images, maps, targets)
            else:
                name, settings = next(methods)
                explanation = explain(classifier, images, name, **settings)
                maps, targets = explanation.maps, explanation.targets

    def measure(done: int) -> None:
        gc.collect()
        measurements.append(Memory(done, _resident_mib(), tracemalloc.get_traced_memory()[0] / 2**20))
        progress(f"{done} calls: {measurements[-1].resident_mib:.1f} MiB resident, {measurements[-1].traced_mib:.2f} MiB traced")

    run(0, 2 * _WARM_UP * len(METHODS))
    gc.collect()
    tracemalloc.start()
    try:
        run(0, 2 * len(METHODS))  # what is replaced from call to call is traced from here on
        done = 0
        for part in (0, calls // 2, calls):
            run(done, part)
            done = part
            measure(done)
    finally:
        tracemalloc.stop()
    return MemoryResult(classifier.name, images.shape[-1], len(images), tuple(METHODS), measurements, time.perf_counter() - begin)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
