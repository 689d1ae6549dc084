"""Networks on a device that fails for good, or that has room for few images."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, Preprocess
from tests.support.tiny_networks import smooth

# As torch formats an illegal memory access: the reason first, then hints for debugging.
ILLEGAL_ACCESS = (
    "CUDA error: an illegal memory access was encountered\n"
    "Search for `cudaErrorIllegalAddress' in NVIDIA's documentation for more information.\n"
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect."
)
WHITE = 2.2  # normalised values of a white image are above, those of photographs are not all

# Settings with which a method takes few passes.
QUICK: dict[str, dict[str, Any]] = {
    "hdm": {"sizes": [2, 3], "ratios": [2], "steps": 2, "stages": 2, "mix_steps": 2},
    "dm": {"sizes": [2, 3], "ratios": [2], "steps": 2},
    "mask": {"steps": 2, "circles": 2},
    "rise": {"masks": 6},
    "integrated_gradients": {"steps": 3},
    "smooth_grad": {"samples": 3},
    "expected_gradients": {"samples": 3},
    "occlusion": {"window": 0.5},
    "opti_cam": {"steps": 2},
    "igos_pp": {"steps": 2, "points": 2, "cells": 4},
}
# Methods for networks without attention.
PLAIN = [method for method, entry in METHODS.items() if not entry.needs_attention]


class Calling(nn.Module):
    """Network that calls a function with its images before each forward, also while it is traced, and in its copies."""

    def __init__(self, network: nn.Module, before: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.network, self.before = network, before

    def forward(self, images: Tensor) -> Tensor:
        self.before(images)
        return self.network(images)


def fail_from(call: int, *, once: bool = False) -> tuple[Callable[[Tensor], None], SimpleNamespace]:
    """Return a function whose device fails at the nth call and ever after, and the count of its calls.

    Args:
        once: the device fails at the nth call alone, which shows who swallows the error: later calls do not raise it again.
    """
    count = SimpleNamespace(calls=0)

    def before(_images: Tensor) -> None:
        count.calls += 1
        if count.calls == call or (count.calls > call and not once):
            raise torch.AcceleratorError(ILLEGAL_ACCESS)

    return before, count


def room_for(
    images: int, error: Callable[[], RuntimeError] = lambda: torch.OutOfMemoryError("CUDA out of memory")
) -> Callable[[Tensor], None]:
    """Return a function that raises for more images than these."""

    def before(given: Tensor) -> None:
        if isinstance(given, Tensor) and len(given) > images:
            raise error()

    return before


def network(armed: str, call: int = 4, white: bool = False) -> Classifier:
    """Build a classifier whose device fails for good, in the process where it does, as long as a file exists.

    Args:
        armed: the file. It is removed by the first failure, so that there is one alone, unless `white`.
        call: forwards after which the device fails.
        white: every process fails, at its first white image instead.
    """
    state = SimpleNamespace(calls=0, failed=False)

    def fails(images: Tensor) -> bool:
        if white:
            return Path(armed).exists() and bool((images > WHITE).flatten(1).all(1).any())
        if state.calls < call:
            return False
        try:
            Path(armed).unlink()
        except FileNotFoundError:
            return False
        return True

    def before(images: Tensor) -> None:
        if not isinstance(images, Tensor):
            return  # while torch.fx traces
        state.calls += 1
        state.failed = state.failed or fails(images)
        if state.failed:
            raise torch.AcceleratorError(ILLEGAL_ACCESS)

    return Classifier(Calling(smooth(3), before).eval(), Preprocess(resize=16, crop=16), ("ant", "bee", "cat"))


def failed() -> Classifier:
    """Build a classifier whose device has failed before."""
    return Classifier(Calling(smooth(3), fail_from(1)[0]).eval(), Preprocess(resize=16, crop=16), ("ant", "bee", "cat"))


def in_actor() -> bool:
    """Return whether this process is an actor of Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


def network_for(share: float) -> nn.Module:
    """Return a network that fits into the memory of an actor with at least this share of a GPU."""
    if in_actor() and sys.modules["ray"].get_runtime_context().get_assigned_resources().get("GPU", 1) < share:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 98.00 MiB.\nGPU 0 has a total capacity of 79 GiB")
    return smooth(3)
