"""SmoothGrad, Input x Gradient, Occlusion and Expected Gradients against captum, with the same random numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import normalise
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.attribution import maps_of_signed, pixel_shares
from hdm_core.methods.expected_gradients import expected_gradients, random_references
from hdm_core.methods.occlusion import OcclusionSettings, Windows, occlusion
from hdm_core.methods.smooth_grad import smooth_grad, standard_noise
from tests.support.tiny_networks import pictures, smooth

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by captum's imports
    from captum.attr import GradientShap, InputXGradient, NoiseTunnel, Occlusion, Saliency

pytestmark = [pytest.mark.usefixtures("double"), pytest.mark.filterwarnings("ignore::UserWarning")]  # captum's, about requires_grad
TARGETS = torch.tensor([2, 0, 1])


def maps_of(images: Tensor, method: str, **settings: Any) -> Tensor:
    return explain(Classifier.from_module(smooth()), images, method, targets=TARGETS, **settings).maps.double()


# SmoothGrad


def test_smooth_grad_is_captums_noise_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    images, count, level = pictures(3), 7, 0.2
    noise = standard_noise(count, images)
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * noise)
    expected = []
    for image, target in zip(images, TARGETS.tolist(), strict=True):
        sigma = level * float(image.max() - image.min())
        tunnel = NoiseTunnel(Saliency(smooth()))
        options = {"nt_type": "smoothgrad", "nt_samples": count, "stdevs": sigma, "abs": False}
        expected.append(tunnel.attribute(image[None].clone(), target=target, **options)[0])
    found = smooth_grad(smooth(), images, TARGETS, noise, level, 5, PassCounter())
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-10)
    maps = maps_of(images, "smooth_grad", samples=count, noise=level)
    torch.testing.assert_close(maps, normalise(torch.stack(expected).abs().amax(1)), rtol=0, atol=1e-4)


def test_smooth_grad_without_noise_is_the_gradient() -> None:
    images = pictures(3)
    torch.testing.assert_close(maps_of(images, "smooth_grad", samples=2, noise=0), maps_of(images, "gradient"), rtol=0, atol=1e-5)


def test_the_noise_is_standard_normal_and_the_same_for_fewer_samples_of_a_size() -> None:
    noise = standard_noise(50, torch.zeros(1, 3, 16, 16))
    assert abs(float(noise.mean())) < 0.01
    assert float(noise.std()) == pytest.approx(1, abs=0.01)
    assert torch.equal(noise, standard_noise(50, torch.ones(4, 3, 16, 16)))


# Input x Gradient


def test_input_x_gradient_is_captums() -> None:
    images = pictures(3)
    expected = InputXGradient(smooth()).attribute(images.clone(), target=TARGETS).detach()
    torch.testing.assert_close(maps_of(images, "input_x_gradient"), maps_of_signed(pixel_shares(expected)).maps, rtol=0, atol=1e-5)


# Occlusion


class Probability(nn.Module):
    """Network of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.network = smooth()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).softmax(1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24)])
def test_occlusion_is_captums_where_windows_fill_the_image(height: int, width: int) -> None:
    images = pictures(3, height, width)
    settings = OcclusionSettings(window=0.25, stride=0.5)
    windows = Windows(settings, height, width)
    assert windows.side == 4
    assert len(windows) == (height // 2 - 1) * (width // 2 - 1)
    expected = Occlusion(Probability()).attribute(images, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2), target=TARGETS, baselines=0.0)
    consistency = ConsistencyLoss(smooth(), images, TARGETS, torch.zeros(1, 3, 1, 1), "probability", 5, PassCounter())
    torch.testing.assert_close(occlusion(consistency, windows), expected[:, 0], rtol=0, atol=1e-8)  # captum adds in float32
    maps = maps_of(images, "occlusion", window=0.25, stride=0.5)
    torch.testing.assert_close(maps, normalise(expected[:, 0]), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "window", "stride"), [(13, 17, 0.3, 0.5), (10, 10, 1.0, 1.0), (9, 12, 0.1, 1.0), (7, 7, 0.9, 0.4)]
)
def test_occlusion_is_that_of_loops(height: int, width: int, window: float, stride: float) -> None:
    images, network = pictures(3, height, width), Probability()
    side = max(1, round(window * min(height, width)))
    step = max(1, round(stride * side))
    whole = network(images).gather(1, TARGETS[:, None])[:, 0]
    sums, counts, passes = torch.zeros(3, height, width), torch.zeros(height, width), 0
    for top in sorted({*range(0, height - side, step), height - side}):
        for left in sorted({*range(0, width - side, step), width - side}):
            hidden = images.clone()
            hidden[:, :, top : top + side, left : left + side] = 0
            drop = whole - network(hidden).gather(1, TARGETS[:, None])[:, 0]
            sums[:, top : top + side, left : left + side] += drop[:, None, None].detach()
            counts[top : top + side, left : left + side] += 1
            passes += 1
    found = explain(Classifier.from_module(smooth()), images, "occlusion", targets=TARGETS, window=window, stride=stride)
    torch.testing.assert_close(found.maps.double(), normalise(sums / counts), rtol=0, atol=1e-4)
    assert found.passes == passes
    assert int(counts.min()) >= 1


def test_a_window_as_large_as_the_image_is_flat() -> None:
    assert explain(smooth(), pictures(1), "occlusion", window=1.0, targets=0).status == ["flat"]


# Expected Gradients


def test_expected_gradients_are_captums_gradient_shap(monkeypatch: pytest.MonkeyPatch) -> None:
    images, count = pictures(3), 6
    generator = torch.Generator().manual_seed(2)
    references, positions = torch.randn(count, 3, 16, 16, generator=generator), torch.rand(count, generator=generator)
    chosen: Iterator[int] = iter(range(count))
    monkeypatch.setattr(np.random, "choice", lambda *_args, **_options: np.array([next(chosen)] * 3))
    coefficients: Iterator[float] = iter(positions.tolist())
    monkeypatch.setattr(np.random, "uniform", lambda _low, _high, size: np.full(size, next(coefficients)))
    total = torch.zeros_like(images)
    for _ in range(count):  # one sample per call, so that the images of a batch share it
        total += GradientShap(smooth()).attribute(images.clone(), baselines=references, n_samples=1, stdevs=0.0, target=TARGETS).detach()
    found = expected_gradients(smooth(), images, TARGETS, references, positions, 4, PassCounter())
    torch.testing.assert_close(found, total / count, rtol=0, atol=1e-10)


def test_expected_gradients_of_a_linear_network_sum_to_the_difference_from_the_background() -> None:
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)).double(), pictures(3)
    references, positions = random_references(9, 16, 16)
    found = expected_gradients(network, images, TARGETS, references, positions, 64, PassCounter()).sum((1, 2, 3))
    whole = network(images).gather(1, TARGETS[:, None])[:, 0]
    background = network(references.expand(-1, 3, -1, -1))[:, TARGETS].mean(0)
    torch.testing.assert_close(found, (whole - background).detach(), rtol=0, atol=1e-10)


def test_expected_gradients_sum_to_about_the_difference_from_the_background() -> None:
    images, network = pictures(3), smooth()
    references, positions = random_references(3000, 16, 16)
    found = expected_gradients(network, images, TARGETS, references, positions, 256, PassCounter()).sum((1, 2, 3))
    whole = network(images).gather(1, TARGETS[:, None])[:, 0]
    background = network(references.expand(-1, 3, -1, -1))[:, TARGETS].mean(0)
    torch.testing.assert_close(found, (whole - background).detach(), rtol=0.1, atol=0.1)


def test_references_are_grey_images_with_the_spectrum_of_photographs() -> None:
    references, positions = random_references(400, 32, 48)
    assert references.shape == (400, 1, 32, 48)
    assert float(references.square().mean()) == pytest.approx(1)
    assert float(positions.min()) >= 0
    assert float(positions.max()) < 1
    power = torch.fft.rfft2(references).abs().square().mean((0, 1))
    # Along the longer side: frequencies of 4 and 16 periods in 48 pixels, whose amplitudes are as 16 to 4.
    assert math.sqrt(float(power[0, 4] / power[0, 16])) == pytest.approx(4, rel=0.15)
    assert torch.equal(references[:7], random_references(400, 32, 48)[0][:7])


def test_the_map_of_expected_gradients_has_references_of_the_networks_scale() -> None:
    images = pictures(3)
    references, positions = random_references(10, 16, 16)
    attributions = expected_gradients(smooth(), images, TARGETS, references, positions, 64, PassCounter())
    expected = maps_of_signed(pixel_shares(attributions)).maps
    torch.testing.assert_close(maps_of(images, "expected_gradients", samples=10), expected, rtol=0, atol=1e-4)
