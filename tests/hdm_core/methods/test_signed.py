"""Signed maps: methods that tell evidence for the class from evidence against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hdm_core import METHODS, explain
from hdm_core.heatmap import diverging
from hdm_core.masking.ops import normalise
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.attribution import strongest_channel
from hdm_core.methods.integrated_gradients import integrated_gradients
from hdm_core.testing.networks import sample_images, smooth_network

QUICK = {
    "integrated_gradients": {"steps": 8},
    "smooth_grad": {"samples": 4},
    "expected_gradients": {"samples": 4},
    "occlusion": {"window": 0.25},
}
SIGNED = [name for name, method in METHODS.items() if method.signed]


class Linear(nn.Module):
    """Two logits: a weighted sum of the pixels, and nothing."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = (images * self.weights).sum((1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_the_methods_with_a_sign() -> None:
    assert set(SIGNED) == {
        *("gradient", "smooth_grad", "input_x_gradient", "integrated_gradients", "deeplift", "expected_gradients", "occlusion")
    }
    assert explain(smooth_network(), sample_images(1), "grad_cam", layer="0").signed is None


@pytest.mark.parametrize("method", ["input_x_gradient", "integrated_gradients", "deeplift"])
def test_of_a_linear_network_the_shares_are_the_weighted_pixels(method: str) -> None:
    draw = torch.Generator().manual_seed(0)
    weights, image = torch.randn(3, 8, 8, generator=draw), torch.randn(1, 3, 8, 8, generator=draw)
    baseline = {} if method == "input_x_gradient" else {"baseline": "mean"}  # of images without a preprocess it is 0
    result = explain(Linear(weights), image, method, targets=0, **baseline)
    expected = (weights * image).sum(1)
    assert result.signed is not None
    torch.testing.assert_close(result.signed, expected / expected.abs().max(), rtol=0, atol=1e-5)
    assert (result.signed < 0).any()
    torch.testing.assert_close(result.maps, normalise(expected.abs()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "smooth_grad"])
def test_of_a_gradient_the_strongest_channel_gives_the_sign(method: str) -> None:
    weights = torch.zeros(3, 8, 8)
    weights[:, 0, 0] = torch.tensor([0.5, -2.0, 1.0])
    weights[:, 1, 1] = torch.tensor([0.5, 0.25, 1.0])
    result = explain(Linear(weights), torch.rand(1, 3, 8, 8), method, targets=0, **QUICK.get(method, {}))
    assert result.signed is not None
    assert result.signed[0, 0, 0] == -1
    assert float(result.signed[0, 1, 1]) == pytest.approx(0.5)
    assert result.signed[0].count_nonzero() == 2


def test_the_strongest_channel_has_the_largest_absolute_value() -> None:
    gradients = torch.randn(2, 5, 4, 3)
    found = strongest_channel(gradients)
    assert torch.equal(found.abs(), gradients.abs().amax(1))
    assert all(found[b, y, x] in gradients[b, :, y, x] for b in range(2) for y in range(4) for x in range(3))


def test_integrated_gradients_are_complete_up_to_their_scale() -> None:
    network, images = smooth_network(), sample_images(2)
    result = explain(network, images, "integrated_gradients", targets=1, steps=32)
    baseline = torch.zeros_like(images[:1])
    attributions = integrated_gradients(network, images, result.targets, baseline, 32, 64, PassCounter())
    scale = attributions.sum(1).abs().amax((1, 2))
    with torch.no_grad():
        change = network(images)[:, 1] - network(baseline)[:, 1]
    assert result.signed is not None
    torch.testing.assert_close(result.signed.sum((1, 2)) * scale, change, rtol=0, atol=1e-3)


def test_occlusion_is_negative_where_hiding_raises_the_class() -> None:
    weights = torch.zeros(3, 8, 8)
    weights[:, :, :4], weights[:, :, 4:] = 1.0, -1.0
    result = explain(Linear(weights / 40), torch.ones(1, 3, 8, 8), "occlusion", targets=0, window=0.25, stride=1.0)
    assert result.signed is not None
    assert (result.signed[0, :, :4] > 0).all()
    assert (result.signed[0, :, 4:] < 0).all()


@pytest.mark.parametrize("method", SIGNED)
def test_without_a_map_there_are_no_signed_values(method: str) -> None:
    flat = explain(Linear(torch.zeros(3, 8, 8)), torch.rand(2, 3, 8, 8), method, targets=0, **QUICK.get(method, {}))
    assert flat.status == ["flat", "flat"]
    assert flat.signed is not None
    assert not flat.signed.any()


def test_the_picture_is_red_white_and_blue() -> None:
    picture = np.asarray(diverging(np.array([[1.0, 0.5, 0.0, -0.5, -1.0]], np.float16)))
    assert picture[0].tolist() == [[255, 0, 0], [255, 128, 128], [255, 255, 255], [128, 128, 255], [0, 0, 255]]
