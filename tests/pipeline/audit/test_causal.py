from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from hdm_core import Classifier
from pipeline.audit.causal import CausalTest, insert_background, one_sided, pasted, random_places, shows, swap_place
from pipeline.tables.student import Interval


class CornerReader(nn.Module):
    """Network whose second logit is the mean of the upper left 8 x 8 pixels."""

    def forward(self, images: Tensor) -> Tensor:
        corner = images[:, :, :8, :8].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(corner), 4 * corner], 1)


def images(count: int, corner: float, seed: int) -> Tensor:
    pictures = 0.1 * torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    pictures[:, :, :8, :8] += corner
    return pictures


def place(left: int, top: int, size: int = 8) -> Tensor:
    pixels = torch.zeros(32, 32, dtype=torch.bool)
    pixels[top : top + size, left : left + size] = True
    return pixels


def test_a_place_that_decides_changes_the_class_and_another_does_not() -> None:
    classifier = Classifier.from_module(CornerReader())
    own, others = images(12, 1.0, 0), images(12, -1.0, 1)
    found = swap_place(classifier, own, others, 1, place(0, 0), 0, 8)
    assert shows(found.removal, -1, 0.5)
    assert shows(found.insertion, 1, 0.5)
    assert found.confirms(0.05)
    assert found.removal.n == found.insertion.n == 12
    elsewhere = swap_place(classifier, own, others, 1, place(20, 20), 0, 8)
    assert not elsewhere.confirms(0.05)


def test_a_place_may_be_removed_by_what_the_caller_shows_there() -> None:
    classifier = Classifier.from_module(CornerReader())
    own, others = images(12, 1.0, 0), images(12, 1.0, 1)  # swapping the corner with those of others changes nothing
    assert not swap_place(classifier, own, others, 1, place(0, 0), 0, 8).confirms(0.05)
    found = swap_place(classifier, own, others, 1, place(0, 0), 0, 8, removed=torch.zeros_like(own))
    expected = 0.5 - torch.softmax(classifier.module(own), 1)[:, 1].double().mean()  # a blank corner has the logits 0 and 0
    assert found.removal.mean is not None
    assert found.removal.mean < 0
    assert abs(found.removal.mean - float(expected)) < 0.15  # minus the change at random places, which may touch the corner


def test_a_background_that_decides_raises_the_class_more_than_the_object_does() -> None:
    classifier = Classifier.from_module(CornerReader())
    own, others = images(6, 1.0, 0), images(6, -1.0, 1)
    middle, corner = place(12, 12)[None].repeat(6, 1, 1), place(0, 0)[None].repeat(6, 1, 1)
    background, objects = insert_background(classifier, (own, middle), (others, middle), 1, 8)
    np.testing.assert_allclose(background, pasted(classifier, others, own, 1, ~place(12, 12), 8))
    assert background.mean() > 0.5
    assert np.abs(objects).max() < 0.01
    background, objects = insert_background(classifier, (own, corner), (others, corner), 1, 8)
    assert np.abs(background).max() < 0.01
    assert objects.mean() > 0.5
    assert not len(insert_background(classifier, (own, torch.zeros_like(middle)), (others, middle), 1, 8)[0])


def test_a_rise_must_be_larger_than_that_of_other_classes() -> None:
    rise, same = np.array([0.5, 0.6, 0.7, 0.6]), np.array([0.6, 0.5, 0.7])
    test = CausalTest(-rise, rise)
    assert test.confirms(0.05)
    assert not test.confirms(0.05, same)
    assert test.confirms(0.05, same - 0.6)
    assert not CausalTest(-rise, -rise).confirms(0.05)  # removal alone
    assert one_sided(rise) == pytest.approx(stats.ttest_1samp(rise, 0).pvalue / 2)


def test_random_places_have_the_same_form_and_overlap_less_than_half() -> None:
    pixels = place(1, 3).numpy()
    found = random_places(pixels, 50, np.random.default_rng(0))
    assert found.shape == (50, 32, 32)
    assert (found.sum((1, 2)) == 64).all()
    assert ((found & pixels).sum((1, 2)) <= 32).all()


def test_a_frame_has_random_places_too() -> None:
    frame = np.ones((32, 32), bool)
    frame[4:-4, 4:-4] = False
    assert random_places(frame, 5, np.random.default_rng(0)).shape == (5, 32, 32)


def test_a_change_on_few_images_shows_nothing() -> None:
    assert shows(Interval.of(np.array([0.5, 0.5, 0.6])), 1, 0.05)
    assert not shows(Interval.of(np.array([0.5, 0.5])), 1, 0.05)
    assert not shows(Interval.of(np.array([0.01, 0.01, 0.02])), 1, 0.05)
