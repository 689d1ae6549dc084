"""Device-dependent choices: device, batch size, memory layout and precision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

from hdm_core.device_errors import is_out_of_memory

# tf32 and bfloat16 multiply with 10 and 7 bits of the 23 of float32. On the CPU tf32 is float32.
Precision = Literal["float32", "tf32", "bfloat16"]

# Memory of a process on a GPU before its first tensor: CUDA's context, and the kernels of cuDNN and cuBLAS. An estimate.
CONTEXT_BYTES = 512 * 2**20

# Memory layout of activations and masked images: on every network measured it was the faster one, or as fast.
LAYOUT = torch.channels_last


def batch_candidates(device: torch.device) -> list[int]:
    """Return the batch sizes to probe, smallest first.

    On CPUs the seconds per image were the same for every batch size from 4 to 16, so one candidate is enough. A run's bytes then do not
    depend on timing.
    """
    return [16, 32, 64, 128, 256] if device.type == "cuda" else [8]


def default_batch(device: torch.device) -> int:
    """Return the batch size of a run whose configuration leaves it open.

    It depends on the kind of device alone: convolutions of another batch size round differently, so that a measured one would give maps
    that differ from worker to worker.
    """
    return 64 if device.type == "cuda" else 8


def largest_batch(device: torch.device) -> int:
    """Return the largest useful batch size.

    Larger batches are no faster, and on CPUs some convolutions then round differently.
    """
    return 256 if device.type == "cuda" else 16


def default_precision(device: torch.device) -> Precision:
    """Return the fastest precision that does not change masks visibly."""
    return "bfloat16" if device.type == "cuda" else "float32"


@contextmanager
def in_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run a network's forward in a precision.

    bfloat16 is torch's autocast; see `float32_arithmetic` for the others.
    """
    with float32_arithmetic(device, tf32=precision == "tf32"):
        if precision == "bfloat16":
            with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
                yield
        else:
            yield


def float32_arithmetic(device: torch.device, tf32: bool = False) -> AbstractContextManager[None]:
    """Compute float32 on CUDA in IEEE arithmetic, or in TF32.

    The kernels are deterministic. Torch's own default is TF32 in convolutions, with which logits of MobileNetV2 differ by up to 0.04 from
    those of a CPU, and kernels that may add in another order in each call. The settings are of the process and are restored at the end.
    """
    return _cuda_arithmetic(tf32) if device.type == "cuda" else nullcontext()


@contextmanager
def _cuda_arithmetic(tf32: bool) -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    deterministic, benchmark = cudnn.deterministic, cudnn.benchmark
    try:
        legacy = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the user's program has set precisions by torch's newer interface; then the older one cannot be read
        legacy = None
    units: tuple[Any, ...] = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
    precisions = [unit.fp32_precision for unit in units]
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        if legacy is None:
            for unit in units:
                unit.fp32_precision = "tf32" if tf32 else "ieee"
        else:
            cudnn.allow_tf32 = tf32
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        if legacy is None:
            for unit, precision in zip(units, precisions, strict=True):
                unit.fp32_precision = precision
        else:
            cudnn.allow_tf32 = legacy[0]
            torch.set_float32_matmul_precision(legacy[1])


def synchronise(device: torch.device) -> None:
    """Wait for the device to finish its queued work, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pick_device(gpus: float) -> torch.device:
    """Return the worker's device: CUDA if it requested a share of a GPU, else the CPU.

    It is the CPU, too, where CUDA is not available; `cuda_fault` returns the reason. The GPU is the current one of the process. Ray shows
    an actor its own GPU only. A worker of Ray Train sees all GPUs of its machine, and Ray has made its own the current one. Ray does not
    divide a GPU's memory: the worker limits itself to its share.

    Args:
        gpus: share of a GPU that the worker requested, 0 for none.
    """
    if gpus > 0 and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        if gpus < 1:
            torch.cuda.set_per_process_memory_fraction(memory_fraction(gpus, torch.cuda.mem_get_info(device)[1]), device)
        return device
    return torch.device("cpu")


def cuda_fault() -> str | None:
    """Return why torch cannot use a GPU, in one line; None if it can.

    The first kernel shows a driver or a torch for another CUDA, and a torch without kernels for the GPU. A GPU without free memory works.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if torch.cuda.is_available():
                torch.zeros(1, device="cuda").item()
                return None
        except (RuntimeError, AssertionError) as error:
            return None if is_out_of_memory(error) else _first_line(str(error))
    if caught:  # such as "The NVIDIA driver on your system is too old"
        return _first_line(str(caught[-1].message))
    return "no GPU is visible to it" if torch.version.cuda or torch.version.hip else "it is built without CUDA"


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "for no reason that it states")


def memory_fraction(gpus: float, total: int) -> float:
    """Return the share of a GPU's memory that one of several workers may allocate.

    The context of every process, with the libraries that it loads, lies outside of what torch's allocator counts.

    Args:
        gpus: share of the GPU, below 1.
        total: memory of the GPU in bytes.
    """
    contexts = int(1 / gpus) * CONTEXT_BYTES
    return gpus * max(1 - contexts / total, 0.5)  # a GPU that is too small for so many workers runs out of memory, and says so


def device_name(device: torch.device) -> str:
    """Return the name for records and logs: cpu, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
