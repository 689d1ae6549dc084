"""The few lines that depend on the kind of device: how many images at once, in which layout and precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]

# Of activations and masked images: on every network measured it was the faster layout, or level.
LAYOUT = torch.channels_last


def batch_candidates(device: torch.device) -> list[int]:
    """Batches worth probing, smallest first.

    On CPUs a pass took as long an image in every batch from 4 to 16, so there is nothing to probe, and a run's bytes depend on no clock.
    """
    return [16, 32, 64, 128, 256] if device.type == "cuda" else [8]


def default_batch(device: torch.device) -> int:
    """How many images go through a network at once where nothing was probed."""
    return 64 if device.type == "cuda" else 8


def largest_batch(device: torch.device) -> int:
    """More images at once are no faster, and on CPUs some convolutions then round differently."""
    return 256 if device.type == "cuda" else 16


def default_precision(device: torch.device) -> Precision:
    """What a network is fastest in without a visible change to the masks."""
    return "bfloat16" if device.type == "cuda" else "float32"


def in_precision(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context that a network runs in: bfloat16 where it may, or float32 throughout."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def synchronise(device: torch.device) -> None:
    """Waits for the device's work: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pick_device(gpus: float) -> torch.device:
    """The worker's device: its CUDA device if it asked for a share of one and there is one, else the CPU.

    Ray shows a worker only the device it was given, so that is device 0 here. Ray does not divide a GPU's memory: a worker
    with a share keeps to it by itself.
    """
    if gpus > 0 and torch.cuda.is_available():
        if gpus < 1:
            torch.cuda.set_per_process_memory_fraction(gpus)
        return torch.device("cuda", 0)
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """For records and logs: cpu, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
