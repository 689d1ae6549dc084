"""Kernels of a call, and the share of its time in which the device had none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from hdm_core.device import synchronise


def kernels(call: Callable[[], object], device: torch.device) -> tuple[int, float]:
    """Return the number of kernels of a call, and the device's idle share of its time.

    On a CPU the calls of torch take the place of kernels.

    Args:
        call: was called before, so that it builds nothing.
    """
    kind, activities = DeviceType.CPU, [ProfilerActivity.CPU]
    if device.type == "cuda":
        kind, activities = DeviceType.CUDA, [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    synchronise(device)
    with profile(activities=activities, acc_events=True) as profiler:
        call()
        synchronise(device)
    # Names that programs give to parts of their work cover the idle time between the kernels of that work.
    events = [event for event in profiler.events() or [] if event.device_type == kind and not event.is_user_annotation]
    return len(events), idle_share([(event.time_range.start, event.time_range.end) for event in events])


def idle_share(intervals: list[tuple[float, float]]) -> float:
    """Return the share of the time that no interval covers.

    The time is that from the first start to the last end. Intervals of several streams may overlap.
    """
    if not intervals:
        return 0.0
    busy, covered = 0.0, min(start for start, _ in intervals)
    first = covered
    for start, end in sorted(intervals):
        busy += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    return 1 - busy / (covered - first) if covered > first else 0.0
