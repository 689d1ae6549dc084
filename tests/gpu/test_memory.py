"""Memory of a GPU that runs out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hdm_core import Classifier, Preprocess
from hdm_core.testing.families import FAMILIES
from tests.gpu.checks import check_halving
from tests.gpu.marks import ON_GPU
from tests.support.tiny_networks import pictures

pytestmark = ON_GPU

_MIB = 2**20


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave 256 MiB of the GPU to torch, beside what it holds already."""
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 256 * _MIB) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.usefixtures("little_memory")
def test_a_batch_that_does_not_fit_is_halved() -> None:
    # Its first layers hold 10 MB per image of 224 x 224 and more in bfloat16: 64 need above 600 MB, 4 fit.
    classifier = Classifier(FAMILIES["vgg"]().to("cuda"), Preprocess(resize=224, crop=224))
    fits, _ = check_halving(classifier, pictures(64, 224), 64)
    assert fits >= 1
