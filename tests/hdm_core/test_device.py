"""Device-dependent choices: arithmetic of CUDA, whose flags torch has without a GPU, and the worker's device and memory."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch

from hdm_core.device import cuda_fault, default_batch, default_precision, float32_arithmetic, in_precision, memory_fraction, pick_device
from tests.support.pretended_gpu import pretended_gpu

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

# Each in a process of its own: torch's older and newer interfaces of these flags cannot be mixed, and not be reset.
STATEMENTS = (
    "pass",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cudnn.benchmark = True",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
)
FLAGS = """
import os, sys, torch
from hdm_core.device import float32_arithmetic

cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul

def precisions():
    return [unit.fp32_precision.replace("none", "ieee") for unit in (cudnn.conv, cudnn.rnn, matmul)]

def state():
    try:
        older = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:
        older = "mixed"
    return precisions(), older, cudnn.deterministic, cudnn.benchmark

def check(statement):
    exec(statement)
    before = state()
    try:
        with float32_arithmetic(torch.device("cuda")):
            assert precisions() == ["ieee"] * 3, precisions()
            assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
            with float32_arithmetic(torch.device("cuda"), tf32=True):
                assert precisions() == ["tf32"] * 3, precisions()
            assert precisions() == ["ieee"] * 3, precisions()
            raise KeyError
    except KeyError:
        pass
    assert state() == before, (statement, before, state())

for statement in sys.argv[1:]:
    if os.fork() == 0:
        check(statement)
        os._exit(0)
    assert os.wait()[1] == 0, statement
"""


@pytest.mark.slow
def test_float32_is_ieee_or_tf32_whatever_the_program_has_set_and_is_restored() -> None:
    ended = subprocess.run([sys.executable, "-c", FLAGS, *STATEMENTS], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_cpu_has_no_such_flags() -> None:
    before = torch.backends.cudnn.deterministic
    with float32_arithmetic(CPU), in_precision("tf32", CPU):
        assert torch.backends.cudnn.deterministic == before
        assert not torch.is_autocast_enabled("cpu")
    with in_precision("bfloat16", CPU):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")


def test_what_is_left_to_the_device_depends_on_its_kind_alone() -> None:
    assert [default_batch(device) for device in (CPU, CUDA)] == [8, 64]
    assert [default_precision(device) for device in (CPU, CUDA)] == ["float32", "bfloat16"]


def test_a_worker_takes_the_current_gpu_and_its_share_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train shows every worker all GPUs of a machine, and makes another one current in each."""
    limits: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1, 24 * 2**30))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit))
    assert pick_device(1) == torch.device("cuda", 3)
    assert limits == []
    assert pick_device(0.25) == torch.device("cuda", 3)
    assert limits == [(pytest.approx(0.25 * 22 / 24), torch.device("cuda", 3))], "four contexts of half a GiB"
    assert pick_device(0) == CPU


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device\nSearch for"),
            "CUDA error: no kernel image is",
        ),
        (RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"), "CUDA unknown error - this may"),
        (AssertionError("Torch not compiled with CUDA enabled"), "Torch not compiled with CUDA enabled"),
        (torch.AcceleratorError("CUDA error: device not ready"), "CUDA error: device not ready"),
    ],
    ids=["no_kernel", "unknown", "not_compiled", "not_ready"],
)
def test_a_driver_or_a_torch_for_another_cuda_shows_at_the_first_call(
    error: Exception, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    found = cuda_fault()
    assert found is not None
    assert found.startswith(fault)
    assert "\n" not in found


def test_a_driver_that_is_too_old_is_the_text_of_torchs_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old (found version 11040).", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert cuda_fault() == "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040)."


@pytest.mark.parametrize(("cuda", "fault"), [("13.0", "no GPU is visible to it"), (None, "it is built without CUDA")])
def test_a_torch_that_sees_no_gpu_says_which_is_missing(cuda: str | None, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert cuda_fault() == fault


def test_a_gpu_that_is_full_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", fail)
    assert cuda_fault() is None


def test_the_pretended_gpu_works() -> None:
    with pretended_gpu():
        assert cuda_fault() is None


@pytest.mark.parametrize("gpus", [0.9, 0.5, 0.34, 0.25, 0.01])
@pytest.mark.parametrize("gib", [4, 24, 80])
def test_all_workers_of_a_gpu_fit_beside_their_contexts(gpus: float, gib: int) -> None:
    """But for cards that are too small for so many."""
    workers, total = int(1 / gpus), gib * 2**30
    used = workers * (memory_fraction(gpus, total) * total + 512 * 2**20)
    assert used <= total * 1.0001 or workers * 512 * 2**20 > total / 2
    assert 0 < memory_fraction(gpus, total) < gpus
