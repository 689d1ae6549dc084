"""Methods on a GPU: agreement with the CPU in each precision, and the same bits twice."""

from __future__ import annotations

import pytest

from hdm_core import METHODS
from hdm_core.device import Precision
from tests.gpu.checks import PRECISIONS, check_agreement, check_same_bits_twice
from tests.gpu.marks import ON_GPU

pytestmark = ON_GPU


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_maps_agree_with_the_cpu(method: str, precision: Precision) -> None:
    check_agreement(method, precision, "cuda")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_a_second_call_gives_the_same_bits(method: str, precision: Precision) -> None:
    check_same_bits_twice(method, precision, "cuda")
