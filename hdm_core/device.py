"""Device-dependent choices: device, batch size, memory layout and precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]

# Memory layout of activations and masked images: on every network measured it was the faster one, or as fast.
LAYOUT = torch.channels_last


def batch_candidates(device: torch.device) -> list[int]:
    """Return the batch sizes to probe, smallest first.

    On CPUs the seconds per image were the same for every batch size from 4 to 16, so one candidate is enough. A run's bytes then do not
    depend on timing.
    """
    return [16, 32, 64, 128, 256] if device.type == "cuda" else [8]


def default_batch(device: torch.device) -> int:
    """Return the batch size to use without probing."""
    return 64 if device.type == "cuda" else 8


def largest_batch(device: torch.device) -> int:
    """Return the largest useful batch size.

    Larger batches are no faster, and on CPUs some convolutions then round differently.
    """
    return 256 if device.type == "cuda" else 16


def default_precision(device: torch.device) -> Precision:
    """Return the fastest precision that does not change masks visibly."""
    return "bfloat16" if device.type == "cuda" else "float32"


def in_precision(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context to run a network in: bfloat16 autocast, or none for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def synchronise(device: torch.device) -> None:
    """Wait for the device to finish its queued work, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pick_device(gpus: float) -> torch.device:
    """Return the worker's device: CUDA if it requested a share of a GPU, else the CPU.

    It is the CPU, too, where CUDA is not available. Ray makes only the assigned GPU visible to a worker, so it is device 0 here. Ray does
    not divide a GPU's memory: the worker limits itself to its share.

    Args:
        gpus: share of a GPU that the worker requested, 0 for none.
    """
    if gpus > 0 and torch.cuda.is_available():
        if gpus < 1:
            torch.cuda.set_per_process_memory_fraction(gpus)
        return torch.device("cuda", 0)
    return torch.device("cpu")


def device_name(device: torch.device) -> str:
    """Return the name for records and logs: cpu, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
