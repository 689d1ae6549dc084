"""Logits that are checked, and targets that are resolved."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm_core.network.logits import class_logits, resolve_targets
from tests.support.tiny_networks import (
    Pair,
    pictures,
    smooth,
)


@pytest.mark.parametrize(
    "network",
    [Pair(smooth()), nn.Conv2d(3, 2, 3), nn.Flatten(0), lambda images: images.mean((1, 2, 3)), lambda images: {"logits": images}],
    ids=["tuple", "map", "one vector", "one number an image", "dict"],
)
def test_an_answer_that_is_no_logits_is_refused(network: Callable[[Tensor], object]) -> None:
    with pytest.raises(TypeError, match=r"must return logits \(B, classes\)"):
        class_logits(network, pictures(2))


def test_the_wrong_number_of_rows_is_refused() -> None:
    with pytest.raises(TypeError, match=r"shape \(1, 3\)"):
        class_logits(lambda images: smooth()(images)[:1], pictures(2))


LOGITS = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.0, 4.5]])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (None, [1, 0]),
        (2, [2, 2]),
        (0, [0, 0]),
        ([2, 1], [2, 1]),
        ((0, 2), [0, 2]),
        (torch.tensor([1, 2]), [1, 2]),
        (torch.tensor([1, 2], dtype=torch.int32), [1, 2]),
        (torch.tensor([1, 2], dtype=torch.uint8), [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (np.array([1, 2], dtype=np.uint16), [1, 2]),
        (np.array([1, 2], dtype=">i4"), [1, 2]),
        (np.array([5, 2, 5, 1])[1::2], [2, 1]),
        ([np.int64(1), np.int32(2)], [1, 2]),
        ([torch.tensor(1), np.uint8(2)], [1, 2]),
        (range(1, 3), [1, 2]),
        (np.int64(2), [2, 2]),
        (np.uint8(2), [2, 2]),
        (np.array(2), [2, 2]),
        (torch.tensor(2), [2, 2]),
        (torch.tensor(2, dtype=torch.uint16), [2, 2]),
    ],
)
def test_targets(targets: object, expected: list[int]) -> None:
    found = resolve_targets(LOGITS, targets)
    assert found.tolist() == expected
    assert found.dtype == torch.int64


@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        ([1], ValueError, "2 images need 2 targets"),
        ([0, 1, 2], ValueError, "2 images need 2 targets"),
        ([[0, 1]], ValueError, "2 images need 2 targets"),
        (torch.tensor([[1], [2]]), ValueError, "2 images need 2 targets"),
        (torch.tensor([1]), ValueError, "2 images need 2 targets"),
        ([[0], [1, 2]], ValueError, "rows have different lengths"),
        (np.int64(3), ValueError, "target 3 is no class"),
        (np.int8(-1), ValueError, "target -1 is no class"),
        (2**70, ValueError, "does not fit into 64 bits"),
        (3, ValueError, "target 3 is no class of this network: it has 3"),
        ([0, 7], ValueError, "target 7 is no class"),
        (-1, ValueError, "target -1 is no class"),
        ([0, -2], ValueError, "target -2 is no class"),
        ([0.0, 1.0], TypeError, "must be integers"),
        (torch.tensor([0.5, 1.0]), TypeError, "must be integers"),
        (1.0, TypeError, "must be integers"),
        (True, TypeError, "must be integers"),
        ([True, False], TypeError, "must be integers"),
        ([True, 2], TypeError, "must be integers"),
        (np.bool_(True), TypeError, "must be integers"),
        (np.array([True, False]), TypeError, "must be integers"),
        (torch.tensor(True), TypeError, "must be integers"),
        (np.float32(1), TypeError, "must be integers"),
        (torch.tensor(1.0), TypeError, "must be integers"),
        (np.array([0.0, 1.0]), TypeError, "must be integers"),
        (torch.zeros(2, dtype=torch.complex64), TypeError, "must be integers"),
        ({0, 1}, TypeError, "must be integers"),
        ({0: 1}, TypeError, "must be integers"),
        ("12", TypeError, "must be integers"),
    ],
)
def test_targets_that_are_none(targets: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        resolve_targets(LOGITS, targets)
