"""Input of users: handled, or refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from tests.support.tiny_networks import Pair, assert_unchanged, mixed_state, normalised, pictures, smooth, snapshot

QUICK: dict[str, Any] = {"sizes": (2, 3), "steps": 3}


def refused(kind: type[Exception], network: nn.Module, images: Tensor, **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        explain(Classifier.from_module(network), images, **{**QUICK, **settings})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("inplace", [True, False])
def test_training_mode_and_relus_in_place_are_handled_and_handed_back(inplace: bool) -> None:
    network = normalised(inplace=inplace)
    before = snapshot(network)
    first, second = (explain(Classifier.from_module(network), pictures(2, 32), **QUICK) for _ in range(2))
    assert torch.equal(first.maps, second.maps), "dropout must be off"
    assert_unchanged(network, before)


def test_a_mixed_state_is_handed_back_after_an_exception() -> None:
    network = mixed_state()
    before = snapshot(network)
    refused(ValueError, network, pictures(2, 32), sizes=(99,))
    assert_unchanged(network, before)


def test_a_network_that_returns_a_pair() -> None:
    assert "must return logits" in refused(TypeError, Pair(smooth()), pictures(2))


@pytest.mark.parametrize(("height", "width"), [(12, 20), (20, 12)])
def test_images_that_are_not_square(height: int, width: int) -> None:
    found = explain(Classifier.from_module(smooth()), pictures(2, height, width), **QUICK)
    assert found.maps.shape == (2, height, width)
    assert found.status == ["ok", "ok"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_than_the_images(dtype: torch.dtype) -> None:
    message = refused(ValueError, smooth().to(dtype), pictures(2))
    assert str(dtype) in message
    assert "torch.float32" in message
    assert ".float()" in message


def test_double_precision_on_both_sides() -> None:
    images = pictures(2)
    double, single = (
        explain(Classifier.from_module(smooth().to(dtype)), images.to(dtype), **QUICK) for dtype in (torch.float64, torch.float32)
    )
    assert double.status == ["ok", "ok"]
    assert double.maps.dtype == torch.float32
    torch.testing.assert_close(double.maps, single.maps, rtol=0, atol=1e-3)


def test_masks_larger_than_the_image() -> None:
    message = refused(ValueError, smooth(), pictures(2, 16, 24), sizes=(3, 17))
    assert message == "mask size 17 is not between 1 and the image's side 16"


class Poisoned(nn.Module):
    """NaN for images that have a very bright pixel."""

    def __init__(self, brightest: float) -> None:
        super().__init__()
        self.network, self.brightest = smooth(), brightest

    def forward(self, images: Tensor) -> Tensor:
        bad = images.amax((1, 2, 3), keepdim=True)[:, 0, 0] > self.brightest
        return torch.where(bad, torch.nan, self.network(images))


def test_logits_that_are_nan() -> None:
    assert explain(Classifier.from_module(Poisoned(-1e9)), pictures(2), targets=0, **QUICK).status == ["nan", "nan"]


def test_logits_that_are_nan_for_one_image_leave_the_others_alone() -> None:
    images = pictures(3)
    clean = explain(Classifier.from_module(Poisoned(1e3)), images, targets=0, **QUICK)
    images[1, 0, 0, 0] = 1e4
    found = explain(Classifier.from_module(Poisoned(1e3)), images, targets=0, **QUICK)
    assert found.status == ["ok", "nan", "ok"]
    assert torch.equal(found.maps[[0, 2]], clean.maps[[0, 2]])


def test_an_image_that_is_all_grey_is_flat_and_leaves_the_others_alone() -> None:
    classifier, images = Classifier.from_module(smooth()), pictures(3)
    settings = {**QUICK, "steps": 10, "learning_rate": 0.15, "eta": 1.0, "relative": True, "noise": 0.5}
    clean = explain(classifier, images, targets=[1, 0, 2], **settings)
    images[1] = 0.0  # f(X) is f(baseline), so that a loss relative to their difference has no unit
    found = explain(classifier, images, targets=[1, 0, 2], **settings)
    assert found.status == ["ok", "flat", "ok"]
    assert torch.equal(found.maps[1], torch.zeros(16, 16))
    assert torch.equal(found.maps[[0, 2]], clean.maps[[0, 2]])


def test_two_classes() -> None:
    assert explain(Classifier.from_module(smooth(2)), pictures(2), **QUICK).status == ["ok", "ok"]


def test_one_logit_is_refused_since_its_softmax_is_always_1() -> None:
    message = refused(ValueError, smooth(1), pictures(2))
    assert message.startswith("the network has one logit, and the softmax of a single class is 1 for every image: set problem_type to")
    for problem_type in ("multi_label_classification", "regression"):
        assert problem_type in message


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(0, 3, 8, 8), torch.zeros(3, 8, 8)], ids=str)
def test_images_that_are_none(images: Tensor) -> None:
    assert "must be a batch of floats (B, C, H, W)" in refused(ValueError, smooth(), images)


def test_bfloat16_gives_nearly_the_same_map() -> None:
    classifier, images = Classifier.from_module(smooth()), pictures(2, 24)
    settings = {"sizes": (3, 5), "steps": 20, "learning_rate": 0.05, "eta": 1.0, "relative": True, "noise": 0.5}
    exact, rough = (explain(classifier, images, targets=[0, 1], precision=name, **settings) for name in ("float32", "bfloat16"))
    assert exact.status == rough.status == ["ok", "ok"]
    assert rough.maps.dtype == torch.float32
    for one, other in zip(exact.maps, rough.maps, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.95
