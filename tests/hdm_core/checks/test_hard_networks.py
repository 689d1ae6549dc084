"""Networks that are quantised, scripted, in half precision or not differentiable: what can run, and one line for the rest."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from hdm_core import METHODS, Classifier, check, evaluate, explain
from hdm_core.masking.ops import normalise
from hdm_core.testing.networks import sample_images
from tests.support.hard_networks import (
    FORWARD,
    PARTLY,
    Argmax,
    Detached,
    OneHot,
    OutsideTorch,
    Rounded,
    int8,
    plain,
    quantisable,
)

QUICK: dict[str, dict[str, Any]] = {
    "hdm": {"sizes": [4], "ratios": [2], "steps": 1, "stages": 1, "mix_steps": 1},
    "dm": {"sizes": [4], "ratios": [2], "steps": 1},
    "mask": {"steps": 1, "cell": 2, "blur": 1.0, "circles": 2},
    "rise": {"masks": 8},
    "integrated_gradients": {"steps": 2},
    "smooth_grad": {"samples": 2},
    "expected_gradients": {"samples": 2},
    "occlusion": {"window": 0.5},
    "opti_cam": {"steps": 2},
    "igos_pp": {"steps": 2, "points": 2, "cells": 4},
}
# torch deprecates TorchScript and eager quantisation.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("name", PARTLY)
def test_check_and_explain_agree_on_the_methods_that_can_run(name: str) -> None:
    make, usable = PARTLY[name]
    network, images = make(), sample_images(2, 16)
    result = check(network, images)
    assert set(result.usable) == set(usable)
    for method in METHODS:
        if method in usable:
            assert explain(network, images, method, **QUICK.get(method, {})).maps.shape == (2, 16, 16)
            continue
        with pytest.raises(ValueError) as caught:
            explain(network, images, method, **QUICK.get(method, {}))
        assert "\n" not in str(caught.value)
        assert "rise" in str(caught.value) or "network in Python" in str(caught.value) or "layer=" in str(caught.value)


@pytest.mark.parametrize("name", PARTLY)
def test_metrics_need_no_gradient_and_no_layer(name: str) -> None:
    network, images, maps = PARTLY[name][0](), sample_images(2, 16), torch.rand(2, 16, 16)
    found = evaluate(network, images, maps, [0, 1])
    with torch.no_grad():
        expected = network(images).softmax(1)[[0, 1], [0, 1]]
    torch.testing.assert_close(found.deletion[:, 0], expected, rtol=0, atol=2e-2 if "head" in name else 1e-4)


@pytest.mark.parametrize("method", [method for method in FORWARD if method != "occlusion"])
def test_an_int8_network_has_about_the_maps_of_its_float_network(method: str) -> None:
    images = sample_images(2, 16)
    found, expected = (explain(network, images, method, targets=1, **QUICK.get(method, {})) for network in (int8(), quantisable()))
    assert found.status == ["ok", "ok"]
    # Activations have 7 bits: the maps of trained networks differ by about 0.01, and by chance up to 0.2 where few levels are used.
    assert (found.maps - expected.maps).abs().mean() < 0.05


def test_occlusion_of_an_int8_network_is_that_of_its_own_answers() -> None:
    # A square changes few of the 128 levels of this untrained network, so that its map is not that of the float network.
    network, images = int8(), sample_images(1, 16)
    with torch.no_grad():
        whole = network(images).softmax(1)[0, 1]
        drops = torch.zeros(16, 16)
        for top, left in itertools.product((0, 8), repeat=2):
            hidden = images.clone()
            hidden[:, :, top : top + 8, left : left + 8] = 0
            drops[top : top + 8, left : left + 8] = whole - network(hidden).softmax(1)[0, 1]
    found = explain(network, images, "occlusion", targets=1, window=0.5, stride=1.0).maps[0]
    torch.testing.assert_close(found, normalise(drops), rtol=0, atol=1e-3)


def test_ablation_without_gradients_is_that_with_gradients() -> None:
    images = sample_images(2, 16)
    network = plain()

    class NoGradientHead(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.network(images)

    found, expected = (explain(each, images, "ablation_cam", targets=1) for each in (NoGradientHead(), network))
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_for_maps_and_images_of_another_type_for_metrics(dtype: torch.dtype) -> None:
    network, images = plain().to(dtype), sample_images(2, 16)
    refused = f"gradients in {dtype} round too much for a map: convert network and images, such as module.float()"
    assert check(network, images).refused == refused
    for method in ("rise", "gradient", "score_cam"):
        with pytest.raises(ValueError, match=r"convert (one|network and images), such as module\.float\(\)"):
            explain(network, images, method)
        with pytest.raises(ValueError) as caught:
            explain(network, images.to(dtype), method)
        assert str(caught.value) == refused
    with pytest.raises(ValueError) as caught:
        evaluate(network, images, torch.rand(2, 16, 16), [0, 1])
    assert str(caught.value) == f"the network's weights are {dtype} and the images torch.float32: convert one, such as module.float()"


def test_a_network_that_detaches_its_input_has_the_methods_that_start_at_a_layer() -> None:
    assert set(check(Detached(), sample_images(2, 16)).usable) == {
        *FORWARD,
        "grad_cam",
        "grad_cam_pp",
        "xgrad_cam",
        "layer_cam",
        "finer_cam",
    }


def test_a_network_that_rounds_is_refused_by_the_methods_that_differentiate() -> None:
    network, images = Rounded(), sample_images(2, 16)
    result = check(network, images)
    assert set(FORWARD) <= set(result.usable)
    assert "the gradient of the logits to the input is zero everywhere, and the logits differ between images" in result.refused
    assert {"hdm", "dm", "mask", "gradient", "deeplift", "integrated_gradients", "full_grad"}.isdisjoint(result.usable)
    layers = [each for each in result.findings if each.subject == "layer" and each.verdict == "doubtful"]
    assert layers
    assert "grad_cam" in layers[0].methods
    with pytest.raises(ValueError, match="the network rounds, thresholds or counts"):
        explain(network, images, "hdm", **QUICK["hdm"])
    assert explain(network, images, "grad_cam").status == ["flat", "flat"]
    assert explain(network, images, "rise", masks=8).status == ["ok", "ok"]


def test_a_class_instead_of_logits_is_refused_for_all() -> None:
    images = sample_images(2, 16)
    assert check(Argmax(), images).refused == (
        "the network must return logits (B, classes) for images (1, 3, 16, 16); it returned a tensor of shape (1,) and type torch.int64: "
        "return the numbers before argmax or rounding"
    )
    assert "the network returns probabilities" in check(OneHot(), images).refused


def test_a_network_for_one_image_at_a_time_is_told_to_take_more() -> None:
    network, images = OutsideTorch(batches=False), sample_images(2, 16)
    assert check(network, images).refused == (
        "the network takes one image and fails for a batch of 4: let it take any number of images, such as by "
        "torch.cat([forward(image) for image in images.split(1)]) (Got invalid dimensions for input: index 0 got 4, expected 1)"
    )
    with pytest.raises(RuntimeError, match="Got invalid dimensions") as caught:  # in Python it is the network's own error, with a note
        explain(network, images, "rise", masks=8)
    assert "fails for a batch of 4" in caught.value.__notes__[0]
    assert explain(network, images[:1], "rise", masks=8, batch=1).status == ["ok"]


def test_the_map_of_a_black_box_is_that_of_the_network_inside() -> None:
    images = sample_images(2, 16)
    found, expected = (explain(Classifier.from_module(network), images, "rise", masks=24) for network in (OutsideTorch(), plain()))
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-4)
