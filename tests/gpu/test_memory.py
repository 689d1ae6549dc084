"""Memory of a GPU that runs out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from hdm_core import Classifier
from tests.gpu.checks import check_halving
from tests.gpu.marks import ON_GPU
from tests.support.tiny_networks import pictures

pytestmark = ON_GPU

_MIB = 2**20


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave 768 MiB of the GPU to torch, beside what it holds already."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 768 * _MIB) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_halved() -> None:
    # 128 channels of 224 x 224 are 12.8 MB per image in bfloat16, and the ReLU has its own: 64 images need 1.6 GB, and 16 need 0.4.
    layers = nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 3)
    classifier = Classifier.from_module(nn.Sequential(*layers).eval().to("cuda"))
    fits, _ = check_halving(classifier, pictures(64, 224), 64)
    assert fits >= 4
