"""Device of a worker, and its classifier on it."""

from __future__ import annotations

import socket

import torch

from hdm_core import Classifier
from hdm_core.device import cuda_fault, pick_device
from hdm_core.device_errors import is_out_of_memory
from pipeline.errors import InputError, one_line
from pipeline.explain.isolate import MEMORY_ADVICE


def usable_device(gpus: float, given: bool) -> torch.device:
    """Return the device of a worker that requested a share of a GPU.

    Args:
        given: Ray has given it the GPU; on the CPU its maps would be other ones than those of the other workers, and late.

    Raises:
        InputError: if torch cannot use the GPU.
        torch.OutOfMemoryError: if the GPU has no memory left for this process; the message says what to do.
    """
    if gpus > 0 and (given or torch.cuda.is_available()) and (fault := cuda_fault()) is not None:
        raise InputError(
            f"compute.gpus_per_worker is {gpus:g}, but torch {torch.__version__} on {socket.gethostname()} cannot use its GPU: "
            f"{one_line(Exception(fault), 300)}; install a driver and a torch for the same CUDA there, or set compute.gpus_per_worker=0"
        )
    try:
        return pick_device(gpus)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise torch.OutOfMemoryError(f"the GPU has no free memory: {MEMORY_ADVICE} ({one_line(error, 120)})") from None


def on_device(classifier: Classifier, device: torch.device) -> Classifier:
    """Move a classifier to the worker's device, and freeze its weights.

    No batch then has to freeze them.

    Raises:
        torch.OutOfMemoryError: if it does not fit; the message says what to do.
    """
    for parameter in classifier.network.parameters():  # a scripted network has no requires_grad_ of its own
        parameter.requires_grad_(False)
    try:
        return classifier.to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        text = f"{classifier.name} does not fit into the free memory of {device}: {MEMORY_ADVICE} ({one_line(error, 120)})"
        raise torch.OutOfMemoryError(text) from None
