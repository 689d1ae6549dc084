"""Seconds and memory of a program's steps."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class StepTiming:
    """Seconds and memory of one step.

    Attributes:
        peak_mib: peak memory of the process up to the end of the step, in MiB.
    """

    step: str
    seconds: float
    peak_mib: float


@dataclass
class Steps:
    """Timings of the steps so far, in order."""

    timings: list[StepTiming] = field(default_factory=list)

    def __call__(self, step: str, call: Callable[[], T]) -> T:
        """Call a function, record it as a step and return its result."""
        begin = time.perf_counter()
        result = call()
        self.timings.append(StepTiming(step, time.perf_counter() - begin, peak_mib()))
        return result


def peak_mib() -> float:
    """Return the peak memory of the process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
