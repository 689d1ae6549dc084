"""The pretended GPU itself: it refuses and counts as CUDA does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.pretended_gpu import DeviceMismatchError, pretended_gpu


def on_gpu(*shape: int) -> Tensor:
    return torch.ones(shape, device="cuda")


MIXED: dict[str, Callable[[], object]] = {
    "a sum": lambda: on_gpu(2) + torch.ones(2),
    "a sum in place on the host": lambda: torch.ones(2).add_(on_gpu(2)),
    "a sum with a number of the device": lambda: torch.ones(2) + on_gpu(),
    "a product of matrices": lambda: on_gpu(2, 2) @ torch.ones(2, 2),
    "cat": lambda: torch.cat([on_gpu(2), torch.ones(2)]),
    "a network that was not moved": lambda: nn.Conv2d(3, 2, 3)(on_gpu(1, 3, 4, 4)),
    "images that were not moved": lambda: nn.Conv2d(3, 2, 3).to("cuda")(torch.ones(1, 3, 4, 4)),
    "gather": lambda: on_gpu(2, 2).gather(1, torch.zeros(2, 1, dtype=torch.int64)),
    "index_select": lambda: on_gpu(2).index_select(0, torch.tensor([0])),
    "an index of the device": lambda: torch.ones(2)[torch.tensor([0], device="cuda")],
    "values written by index": lambda: on_gpu(3).index_put_((torch.tensor([0, 1], device="cuda"),), torch.ones(2)),
    "where": lambda: torch.where(on_gpu(2) > 0, torch.ones(2), 0.0),
    "a buffer made in the forward pass": lambda: on_gpu(2) * torch.arange(2),
    "random numbers of the host's generator": lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
    "a loss with targets of the host": lambda: F.cross_entropy(on_gpu(2, 3), torch.tensor([0, 1])),
    "a gradient of the host": lambda: on_gpu(2).requires_grad_().exp().backward(torch.ones(2)),
}


@pytest.mark.parametrize("case", MIXED)
def test_tensors_on_two_devices_are_refused(case: str) -> None:
    with pretended_gpu(), pytest.raises(DeviceMismatchError, match="expected a"):
        MIXED[case]()


def test_the_error_names_the_line_and_the_devices() -> None:
    with pretended_gpu(), pytest.raises(DeviceMismatchError) as caught:
        on_gpu(2, 3) + torch.ones(2, 3)
    assert "aten.add.Tensor at tests/cuda/test_pretended_gpu.py:" in str(caught.value)
    assert "(2, 3) on cuda, (2, 3) on cpu" in str(caught.value)


# How the host waits, by CUDA's rules.
WAITS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "arithmetic": (lambda: (on_gpu(2) * 2 + torch.tensor(3.0)).sum(), []),
    "a view": (lambda: on_gpu(4)[1:3].view(1, 2).T, []),
    "zeros": (lambda: torch.zeros(2, device="cuda") + on_gpu(2).new_zeros(2) + torch.zeros_like(on_gpu(2)), []),
    "item": (lambda: on_gpu(1).item(), ["item"]),
    "float": (lambda: float(on_gpu(1)), ["item"]),
    "a condition": (lambda: bool((on_gpu(2) > 0).all()), ["item"]),
    "tolist": (lambda: on_gpu(3).tolist(), ["tolist"]),
    "equal": (lambda: torch.equal(on_gpu(2), on_gpu(2)), ["equal"]),
    "allclose": (lambda: torch.allclose(on_gpu(2), on_gpu(2)), ["allclose"]),
    "nonzero": (lambda: on_gpu(2).nonzero(), ["nonzero"]),
    "a choice by bools": (lambda: on_gpu(2)[on_gpu(2) > 0], ["nonzero"]),
    "one value written by bools": (lambda: on_gpu(2).__setitem__(on_gpu(2) > 0, 3.0), []),
    "an index on the device": (lambda: on_gpu(3)[torch.arange(2, device="cuda")], []),
    "an index of the host": (lambda: on_gpu(3)[torch.arange(2)], ["copy to the device"]),
    "an index as a list": (lambda: on_gpu(3)[[0, 2]], ["copy to the device"]),
    "a tensor of numbers": (lambda: torch.tensor([1.0, 2.0], device="cuda"), ["copy to the device"]),
    "a new tensor of numbers": (lambda: on_gpu(2).new_tensor([1.0]), ["copy to the device"]),
    "to the device": (lambda: torch.ones(2).to("cuda"), ["copy to the device"]),
    "to the device of another tensor": (lambda: torch.ones(2).to(on_gpu(1)), ["copy to the device"]),
    "non-blocking from pageable memory": (lambda: torch.ones(2).to("cuda", non_blocking=True), ["copy to the device"]),
    "non-blocking from pinned memory": (lambda: torch.ones(2).pin_memory().to("cuda", non_blocking=True), []),
    "blocking from pinned memory": (lambda: torch.ones(2).pin_memory().cuda(), ["copy to the device"]),
    "copy_ to the device": (lambda: on_gpu(2).copy_(torch.ones(2)), ["copy to the device"]),
    "copy_ on the device": (lambda: on_gpu(2).copy_(on_gpu(2)), []),
    "to the host": (lambda: on_gpu(2).cpu(), ["copy to the host"]),
    "to the host, non-blocking": (lambda: on_gpu(2).to("cpu", non_blocking=True), []),
    "to where it is": (lambda: on_gpu(2).to("cuda").cuda().to(torch.float32), []),
    "another type": (lambda: on_gpu(2).to(torch.float64), []),
    "synchronise": (lambda: torch.cuda.synchronize(), ["synchronise"]),
    "eigenvectors": (lambda: torch.linalg.eigh(on_gpu(2, 2)), ["linalg"]),
    "repeat by a number": (lambda: on_gpu(2).repeat_interleave(3), []),
    "repeat by a tensor": (lambda: on_gpu(2).repeat_interleave(torch.arange(2, device="cuda")), ["repeat_interleave"]),
}


@pytest.mark.parametrize("case", WAITS)
def test_waits_are_counted(case: str) -> None:
    call, kinds = WAITS[case]
    with pretended_gpu() as gpu:
        call()
    assert sorted(kind for kind, _ in gpu.waits.elements()) == kinds
    assert all(line.startswith("tests/cuda/test_pretended_gpu.py:") for _, line in gpu.waits)


def test_tensors_report_their_device() -> None:
    with pretended_gpu():
        on_device, on_host = on_gpu(2), torch.ones(2)
        assert (on_device.device, on_host.device) == (torch.device("cuda", 0), torch.device("cpu"))
        assert (on_device.is_cuda, on_device.is_cpu, on_device.get_device()) == (True, False, 0)
        assert (on_host.is_cuda, on_host.is_cpu, on_host.get_device()) == (False, True, -1)
        assert on_device[:1].device == (on_device + 1).device == copy.deepcopy(on_device).device == on_device.device
        assert on_device.cpu().device == on_host.device
        assert torch.ones_like(on_device, device="cpu").device == on_host.device
        assert torch.empty(1, device="meta").device.type == "meta"
        with torch.device("cuda"):
            assert torch.zeros(2).device == on_device.device


def test_numpy_needs_the_tensor_on_the_host() -> None:
    with pretended_gpu():
        for read in (Tensor.numpy, np.asarray):
            with pytest.raises(TypeError, match="to numpy"):
                read(on_gpu(2))
        assert on_gpu(2).cpu().numpy().tolist() == np.asarray(on_gpu(2).cpu()).tolist() == [1.0, 1.0]


def test_a_backward_pass_is_checked_and_its_gradients_are_on_the_device() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    images = torch.ones(2, 3, 8, 8)
    inputs = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network(inputs).sum(), inputs)
    with pretended_gpu() as gpu:
        inputs = images.to("cuda").requires_grad_()
        (gradient,) = torch.autograd.grad(copy.deepcopy(network).to("cuda")(inputs).sum(), inputs)
        assert gradient.device.type == "cuda"
        assert torch.equal(gradient.cpu(), expected)
    assert gpu.kernels["aten.convolution_backward.default"] == 1


def test_torch_is_as_before_afterwards() -> None:
    available, before = torch.cuda.is_available(), torch.autocast
    with pretended_gpu():
        assert torch.cuda.is_available()
        assert torch.cuda.get_device_name(0) == "pretended GPU"
    assert torch.cuda.is_available() == available
    assert torch.autocast is before
    assert torch.ones(2, device="cpu").device.type == "cpu"
