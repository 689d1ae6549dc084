"""Where a worker computes: the only lines that know CUDA outside hdm_core."""

from __future__ import annotations

import torch


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
