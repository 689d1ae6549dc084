"""The controls: centre, edges and random map, against slow and obvious versions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from hdm_core import METHODS, PAPER_METHODS, Classifier, Preprocess, controls_last, explain
from hdm_core.masking.ops import normalise
from hdm_core.methods.center import center_map
from tests.support.tiny_networks import pictures, smooth

CONTROLS = ("center", "edges", "random_map")


def test_the_controls_are_a_family_at_the_end_of_the_registry() -> None:
    assert tuple(name for name, method in METHODS.items() if method.is_control) == CONTROLS
    assert controls_last(["edges", "lime", "hdm", "center"]) == ["hdm", "lime", "center", "edges"]


def test_the_papers_methods_are_fifteen_and_the_first_of_the_registry() -> None:
    assert len(PAPER_METHODS) == 15
    assert tuple(METHODS)[:15] == PAPER_METHODS


@pytest.mark.parametrize("method", CONTROLS)
def test_a_control_does_not_depend_on_the_network(method: str) -> None:
    images = pictures(2)
    first, second = (explain(smooth(classes), images, method, targets=classes - 1).maps for classes in (2, 3))
    assert torch.equal(first, second)


@pytest.mark.parametrize("method", CONTROLS)
def test_a_control_has_the_same_bits_alone_and_in_a_batch(method: str) -> None:
    images = pictures(5)
    together = explain(smooth(), images, method, batch=2).maps
    for image, found in zip(images, together, strict=True):
        assert torch.equal(explain(smooth(), image[None], method).maps[0], found)


# Centre


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_the_centre_is_a_gaussian_pixel_by_pixel(size: tuple[int, int]) -> None:
    height, width = size
    found = center_map(height, width, 0.25)
    for row in range(height):
        for column in range(width):
            y, x = (row - (height - 1) / 2) / height, (column - (width - 1) / 2) / width
            assert float(found[row, column]) == pytest.approx(math.exp(-(x * x + y * y) / 0.125), rel=1e-12)
    assert torch.equal(found, found.flip(0))
    assert torch.equal(found, found.flip(1))
    maps = explain(smooth(), pictures(2, height, width), "center").maps
    torch.testing.assert_close(maps, normalise(found).float().expand(2, -1, -1), rtol=0, atol=1e-6)


def test_the_width_of_the_centre_changes_no_rank() -> None:
    narrow, wide = (explain(smooth(), pictures(1), "center", width=width).maps.flatten() for width in (0.15, 0.5))
    assert not torch.equal(narrow, wide)
    assert torch.equal(narrow.double().argsort(stable=True), wide.double().argsort(stable=True))


# Edges


def test_edges_are_scipys_sobel_of_the_grey_photograph() -> None:
    preprocess = Preprocess(resize=None, crop=(20, 24), std=(0.2, 0.3, 0.25))
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    images = preprocess(photograph)[None]
    found = explain(Classifier.from_module(smooth(), preprocess), images, "edges").maps[0]
    grey = np.asarray(photograph, np.float64) @ [0.299, 0.587, 0.114]
    expected = np.hypot(ndimage.sobel(grey, 0, mode="nearest"), ndimage.sobel(grey, 1, mode="nearest"))
    low, high = expected.min(), expected.max()
    np.testing.assert_allclose(found.numpy(), (expected - low) / (high - low), atol=1e-5)


def test_edges_of_another_number_of_channels_are_those_of_their_mean() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    images = torch.rand(1, 2, 12, 12)
    grey = images.mean(1)[0].double().numpy()
    expected = np.hypot(ndimage.sobel(grey, 0, mode="nearest"), ndimage.sobel(grey, 1, mode="nearest"))
    found = explain(network, images, "edges", targets=0).maps[0]
    np.testing.assert_allclose(found.numpy(), (expected - expected.min()) / (expected.max() - expected.min()), atol=1e-5)


def test_an_image_without_edges_is_flat() -> None:
    assert explain(smooth(), torch.full((1, 3, 12, 12), 0.3), "edges").status == ["flat"]


# Random map


def test_a_random_map_is_that_of_the_images_content() -> None:
    images = pictures(3)
    maps = explain(smooth(), images, "random_map").maps
    assert torch.equal(explain(smooth(), images.flip(0), "random_map").maps, maps.flip(0))
    other = images.clone()
    other[0, 0, 0, 0] += 1e-3
    changed = explain(smooth(), other, "random_map").maps
    assert not torch.equal(changed[0], maps[0])
    assert torch.equal(changed[1:], maps[1:])
    assert torch.equal(explain(smooth(), images.contiguous(memory_format=torch.channels_last), "random_map").maps, maps)


def test_a_random_map_is_an_upsampled_grid_of_uniform_values() -> None:
    images = torch.randn(400, 3, 7, 7, generator=torch.Generator().manual_seed(1))
    maps = explain(smooth(), images, "random_map", cells=7, batch=64).maps
    assert torch.equal(maps.amax((1, 2)), torch.ones(400))
    assert torch.equal(maps.amin((1, 2)), torch.zeros(400))
    assert abs(float(maps.mean()) - 0.5) < 0.01  # as many cells as pixels: no position is preferred
    assert float(maps.mean(0).std()) < 0.03


def test_another_seed_gives_another_random_map() -> None:
    first, second = (explain(smooth(), pictures(1), "random_map", seed=seed).maps for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_random_map_is_smooth() -> None:
    found = explain(smooth(), pictures(1, 28, 28), "random_map", cells=7).maps[0]
    steps = torch.cat([found.diff(dim=0).flatten(), found.diff(dim=1).flatten()]).abs()
    assert float(steps.max()) < 0.3  # a cell is 4 pixels wide; N stretches values that no pixel reaches
