from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from hdm_core.classifier import Classifier
from hdm_core.masking.baselines import baseline_image
from hdm_core.preprocess import Preprocess
from tests.support.tiny_networks import pictures, smooth

CLASSIFIER = Classifier.from_module(smooth(), Preprocess(resize=16, crop=16))


def test_mean_is_zero_so_that_a_masked_image_is_the_mask_times_the_image() -> None:
    images = pictures(2)
    baseline = baseline_image("mean", CLASSIFIER, images)
    assert torch.equal(baseline.expand_as(images), torch.zeros_like(images))


def test_black_is_a_black_photograph() -> None:
    images = pictures(2)
    expected = CLASSIFIER.prepare([Image.new("RGB", (16, 16))])
    assert torch.equal(baseline_image("black", CLASSIFIER, images).expand_as(images), expected.expand_as(images))


def test_black_needs_a_preprocess() -> None:
    with pytest.raises(ValueError, match="needs the classifier's preprocess"):
        baseline_image("black", Classifier.from_module(smooth()), pictures(1))


def test_blur_is_a_gaussian_of_a_twentieth_of_the_short_side() -> None:
    image = torch.zeros(1, 1, 40, 60)
    image[0, 0, 20, 30] = 1
    found = baseline_image("blur", CLASSIFIER, image)[0, 0]
    kernel = [math.exp(-((i - 4) ** 2) / (2 * 2.0**2)) for i in range(9)]
    expected = torch.zeros(40, 60)
    for i in range(9):
        for j in range(9):
            expected[16 + i, 26 + j] = kernel[i] * kernel[j] / sum(kernel) ** 2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("side", [1, 4, 16, 37])
def test_blur_keeps_the_size_and_a_constant_image(side: int) -> None:
    images = torch.full((2, 3, side, side + 3), 0.4)
    torch.testing.assert_close(baseline_image("blur", CLASSIFIER, images), images)


@pytest.mark.parametrize("kind", ["mean", "black", "blur"])
def test_the_type_is_the_images(kind: str) -> None:
    images = pictures(2).double()
    assert baseline_image(kind, CLASSIFIER, images).dtype == torch.float64


@pytest.mark.parametrize(
    ("preprocess", "black"),
    [
        (Preprocess(16, 16, (0.5,), (0.25,)), -2.0),
        (Preprocess(16, 16, (0.0,), (1.0,), value_range=(-1024, 1024)), -1024.0),
        (Preprocess(16, 16, (10.0,), (5.0,), value_range=(-20, 20)), -6.0),
        (Preprocess(16, 16, (0.5,) * 7, (0.25,) * 7), -2.0),
    ],
)
def test_black_of_other_channels_and_ranges(preprocess: Preprocess, black: float) -> None:
    classifier = Classifier.from_module(smooth(), preprocess)
    images = torch.zeros(2, preprocess.channels, 16, 20)
    found = baseline_image("black", classifier, images)
    assert torch.equal(found.expand_as(images), torch.full_like(images, black))
    assert torch.equal(preprocess(np.zeros((16, 16, preprocess.channels), np.uint8)), torch.full((preprocess.channels, 16, 16), black))
    assert baseline_image("mean", classifier, images).shape == (1, preprocess.channels, 1, 1)
    assert baseline_image("blur", classifier, images).shape == images.shape
