"""Errors of the device: which of them end the process's use of it, and which are a lack of memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from hdm_core.device_errors import is_fatal, is_of_device, is_out_of_memory
from tests.support.failing_device import ILLEGAL_ACCESS

# Of cudaGetErrorString; "this leaves the process in an inconsistent state" by CUDA's documentation, or the hardware is broken.
FATAL = [
    "an illegal memory access was encountered",
    "device-side assert triggered",
    "unspecified launch failure",
    "misaligned address",
    "an illegal instruction was encountered",
    "the launch timed out and was terminated",
    "hardware stack error",
    "operation not supported on global/shared address space",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected during the execution",
    "the MPS client has been terminated by the server",
    "unknown error",
]
REFUSED = ["invalid argument", "invalid configuration argument", "too many resources requested for launch", "operation not supported"]
NO_MEMORY: list[RuntimeError] = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
]
NEITHER: list[Exception] = [
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input."),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError(f"a layer raised: {FATAL[0]}"),
    ValueError("CUDA error: an illegal memory access was encountered"),  # quoted by somebody
    MemoryError(),
]


@pytest.mark.parametrize("reason", FATAL)
@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
def test_a_device_that_failed_is_recognised_by_torchs_class_and_by_its_text(kind: type[RuntimeError], reason: str) -> None:
    for text in (f"CUDA error: {reason}", f"CUDA error: {reason}\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."):
        error = kind(text)
        assert is_fatal(error)
        assert is_of_device(error)
        assert not is_out_of_memory(error)


def test_an_accelerator_error_without_a_known_text_is_fatal() -> None:
    assert is_fatal(torch.AcceleratorError("XPU: device lost"))


@pytest.mark.parametrize("reason", REFUSED)
def test_a_call_that_cuda_refuses_leaves_the_device_usable(reason: str) -> None:
    error = torch.AcceleratorError(f"CUDA error: {reason}\nSearch for it in the documentation")
    assert not is_fatal(error)
    assert not is_of_device(error)


@pytest.mark.parametrize("error", NO_MEMORY, ids=str)
def test_lack_of_memory_is_recognised_by_class_and_by_the_libraries_texts(error: RuntimeError) -> None:
    assert is_out_of_memory(error)
    assert is_of_device(error)
    assert not is_fatal(error)


@pytest.mark.parametrize("error", NEITHER, ids=repr)
def test_other_errors_are_neither(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert not is_fatal(error)


def test_an_error_that_hides_a_failed_device_is_fatal() -> None:
    def hide() -> None:
        try:
            raise torch.AcceleratorError(ILLEGAL_ACCESS)
        except RuntimeError:
            raise ValueError("the network cannot be traced") from None

    with pytest.raises(ValueError, match="traced") as caught:
        hide()
    assert is_fatal(caught.value)
    assert not is_fatal(ValueError("the network cannot be traced"))


def test_for_an_unknown_text_a_wait_for_the_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's and Triton's errors after a failure have texts of their own."""
    errors = [RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), RuntimeError("Triton Error [CUDA]: misaligned address")]
    answers: list[RuntimeError] = []

    def synchronize() -> None:
        if answers:
            raise answers[0]

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    assert not any(is_fatal(error) for error in errors)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert not any(is_fatal(error) for error in errors), "the device answers: it was this call alone"
    answers.append(torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"))
    assert not any(is_fatal(error) for error in errors)
    answers[0] = torch.AcceleratorError(ILLEGAL_ACCESS)
    assert all(is_fatal(error) for error in errors)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_real_gpu_raises_what_is_recognised() -> None:
    """In a process of its own: after an index out of range on the device it cannot use CUDA any more."""
    code = """
import torch
from hdm_core.device_errors import is_fatal, is_out_of_memory

def judge(action):
    try:
        action()
    except RuntimeError as error:
        return is_fatal(error), is_out_of_memory(error)

values = torch.zeros(4, device="cuda")
print(judge(lambda: torch.empty(2**50, device="cuda")))
print(judge(lambda: values.view(3)))
print(judge(lambda: values[torch.tensor([9], device="cuda")].sum().item()))
print(judge(lambda: values.sum().item()))
print(is_fatal(ValueError("another error in the same process")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(False, True)", "(False, False)", "(True, False)", "(True, False)", "True"]
