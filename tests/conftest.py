"""Fixtures that more than one test module uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("hdm", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("hdm")


# hdm_core


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors and networks are float64, so that two ways to compute one thing agree to many digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
