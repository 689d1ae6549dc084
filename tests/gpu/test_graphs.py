"""CUDA graphs on a GPU: passes are captured, or launched kernel by kernel where they cannot be."""

from __future__ import annotations

import pytest

from hdm_core.device import Precision
from tests.gpu.checks import PRECISIONS, check_fallback, check_graphs
from tests.gpu.marks import ON_GPU

pytestmark = ON_GPU


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", ["hdm", "dm", "mask"])
def test_passes_are_captured_and_give_the_maps_of_those_that_are_not(method: str, precision: Precision) -> None:
    check_graphs(method, precision, "cuda")


def test_a_network_that_cannot_be_captured_is_explained_and_the_log_says_so_once() -> None:
    check_fallback("cuda")
