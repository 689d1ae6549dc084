"""Memory of a GPU that runs out."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from hdm_core import Classifier
from tests.cuda.settings import NETWORKS, explained
from tests.gpu.checks import ReadingNetwork, check_halving
from tests.gpu.marks import ON_GPU
from tests.support.tiny_networks import pictures

pytestmark = ON_GPU

_MIB = 2**20


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave 768 MiB of the GPU to torch, beside what it holds already."""
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((reserved_mib() + 768) * _MIB / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def reserved_mib() -> float:
    """Return the memory that torch holds when it holds no more than it must."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved() / _MIB


@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_halved() -> None:
    # 128 channels of 224 x 224 are 12.8 MB per image in bfloat16, and the ReLU has its own: 64 images need 1.6 GB, and 16 need 0.4.
    layers = nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 3)
    classifier = Classifier.from_module(nn.Sequential(*layers).eval().to("cuda"))
    fits, _ = check_halving(classifier, pictures(64, 224), 64)
    assert fits >= 4


def test_networks_that_were_captured_leave_no_memory_behind() -> None:
    """A stream for each of them would hold 64 MiB of cuBLAS and cuBLASLt."""
    explained(NETWORKS["residual"]().to("cuda"), pictures(3, 16), "hdm", precision="bfloat16")
    before = reserved_mib()
    for _ in range(4):
        explained(NETWORKS["residual"]().to("cuda"), pictures(3, 16), "hdm", precision="bfloat16")
    assert reserved_mib() <= before + 8


def test_a_capture_that_fails_gives_its_memory_back() -> None:
    images = pictures(16, 224)  # 26 MiB per layer of 8 channels
    explained(ReadingNetwork().to("cuda"), images[:1], "hdm", precision="float32")
    before = reserved_mib()
    for _ in range(2):
        explained(ReadingNetwork().to("cuda"), images, "hdm", precision="float32")
    assert reserved_mib() <= before + 8
