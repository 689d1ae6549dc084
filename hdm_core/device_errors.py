"""Errors of the device and of no image: fatal ones, and lack of memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from traceback import clear_frames

import torch

# The text of torch's AcceleratorError, and of the RuntimeError that torch raised in its place before 2.8.
_API_ERROR = re.compile(r"(?:CUDA|HIP)(?: driver)? error: (.*)")

# Calls that CUDA refuses and after which the process can use the device: CUDA's documentation (driver_types.h) says of none of them that it
# "leaves the process in an inconsistent state". The texts are those of cudaGetErrorString.
_REFUSED_CALLS = {
    "invalid argument",  # 1
    "invalid configuration argument",  # 9, such as a grid that is too large
    "too many resources requested for launch",  # 701
    "too many blocks in cooperative launch",  # 720
    "operation not supported",  # 801; 717, "operation not supported on global/shared address space", is fatal
    # 900 to 908 and 910: a graph that cannot be captured or updated
    "operation not permitted when stream is capturing",
    "operation failed due to a previous error during capture",
    "operation would result in a merge of separate capture sequences",
    "capture was not ended in the same stream as it began",
    "capturing stream has unjoined work",
    "dependency created on uncaptured work in another stream",
    "operation would make the legacy stream depend on a capturing blocking stream",
    "operation not permitted on an event last recorded in a capturing stream",
    "attempt to terminate a thread-local capture sequence from another thread",
    "the graph update was not performed because it included changes which violated constraints specific to instantiated graph update",
}

# Statuses of cuBLAS, cuDNN and their relatives, which torch raises as RuntimeError. CUDNN_STATUS_NOT_SUPPORTED is a missing algorithm.
_LIBRARY_STATUS = re.compile(r"\b(?:[A-Z]+_STATUS|CUFFT)_[A-Z_]+")
_ALLOCATION_FAILED = re.compile(r"ALLOC(?:ATION)?_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the device had too little memory: fewer images may fit."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    if _cuda_reason(error) == "out of memory":  # an allocation beside torch's allocator, such as the context's
        return True
    return any(_ALLOCATION_FAILED.search(status) for status in _LIBRARY_STATUS.findall(str(error)))


def is_fatal(error: BaseException) -> bool:
    """Return whether the device failed, for this process for good.

    After an illegal memory access, a device-side assertion or a hardware error, every later call of CUDA in the process raises the same
    error. torch raises AcceleratorError for it, a RuntimeError that OutOfMemoryError is not. Errors of cuBLAS, cuDNN, Triton and others
    that the failure causes have other texts: there a call that waits for the device decides, if the process has used CUDA.

    Args:
        error: with the errors that it was raised from, or while they were handled.
    """
    return any(_is_fatal_call(each) for each in with_causes(error)) or _device_fails()


def is_of_device(error: BaseException) -> bool:
    """Return whether an error is the device's, fatal or not, and no network's."""
    return is_out_of_memory(error) or is_fatal(error)


def _is_fatal_call(error: BaseException) -> bool:
    reason = _cuda_reason(error)
    if reason is None:
        return isinstance(error, torch.AcceleratorError)
    return not is_out_of_memory(error) and reason not in _REFUSED_CALLS and not _LIBRARY_STATUS.match(reason)


def _cuda_reason(error: BaseException) -> str | None:
    """Return the reason in an error of a call to CUDA; None for another error."""
    found = _API_ERROR.match(str(error)) if isinstance(error, RuntimeError) else None
    return None if found is None else found[1].strip()


def with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes: those that it was raised from or after."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def clear_tensors(error: BaseException) -> None:
    """Clear the variables of the calls that an error ended.

    Their tensors would otherwise hold the device's memory while the error is handled. Variables of calls that still run stay.
    """
    for each in with_causes(error):
        clear_frames(each.__traceback__)


def _device_fails() -> bool:
    """Return whether CUDA, if the process has used it, raises a fatal error now."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return _is_fatal_call(error)
    return False
