"""Additions of `fast` to the paper: relative loss, noise background, removal term."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.pass_counter import PassCounter
from tests.support.tiny_networks import Constant, pictures, smooth

FAST = {"preset": "fast", "sizes": (3, 5), "steps": 8}
TARGETS = [1, 0, 2]


class Scaled(nn.Module):
    """Network with scaled and shifted logits, as by a temperature or a common bias."""

    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.network, self.factor, self.shift = smooth(), factor, shift

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.network(images) + self.shift


@pytest.mark.parametrize(("factor", "shift"), [(1e-2, 0.0), (1e2, 0.0), (1.0, 30.0), (1e-3, -1.0)])
def test_the_scale_of_the_logits_does_not_matter(factor: float, shift: float) -> None:
    images = pictures(3).double()
    expected = explain(Classifier.from_module(smooth().double()), images, targets=TARGETS, **FAST)
    found = explain(Classifier.from_module(Scaled(factor, shift).double()), images, targets=TARGETS, **FAST)
    assert found.status == ["ok"] * 3
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-3)


def test_the_papers_loss_gives_up_on_small_logits() -> None:
    paper = {**FAST, "relative": False, "eta": 100.0, "noise": 0.0}
    found = explain(Classifier.from_module(Scaled(1e-2)), pictures(3), targets=TARGETS, **paper)
    assert found.status == ["flat"] * 3


def test_constant_logits_give_a_flat_map() -> None:
    assert explain(Classifier.from_module(Constant()), pictures(2), **FAST).status == ["flat", "flat"]


def loss(noise: float, images: Tensor) -> ConsistencyLoss:
    return ConsistencyLoss(smooth(), images, torch.tensor([1, 0]), torch.zeros(1, 3, 1, 1), "logit", 8, PassCounter(), True, noise)


def test_backgrounds_are_drawn_again_in_every_step_and_the_same_in_every_run() -> None:
    state = torch.random.get_rng_state()
    one, two = (loss(0.5, pictures(2, 12, 10)) for _ in range(2))
    first, second = one.noise_backgrounds(2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.shape == (1, 3, 12, 10)
    assert not torch.equal(first, second)
    assert torch.equal(next(two.noise_backgrounds(1)), first)
    torch.testing.assert_close(next(loss(1.0, pictures(2, 12, 10)).noise_backgrounds(1)), 2 * first)
    assert next(loss(0.0, pictures(2)).noise_backgrounds(1)) is None


def test_a_background_does_not_matter_where_all_is_shown() -> None:
    images, index = pictures(2, 12), torch.arange(2)
    found = loss(0.5, images)
    shown = torch.ones(2, 1, 12, 12)
    torch.testing.assert_close(found.gradient(shown, index, next(found.noise_backgrounds(1))), torch.zeros_like(shown), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_a_map_depends_neither_on_the_batch_nor_on_the_other_images(batch: int) -> None:
    classifier, images = Classifier.from_module(smooth()), pictures(5)
    together = explain(classifier, images, targets=[1, 0, 2, 1, 0], batch=batch, **FAST)
    alone = explain(classifier, images[3:4], targets=1, **FAST)
    torch.testing.assert_close(together.maps[3], alone.maps[0], rtol=0, atol=1e-4)


def test_removal_aims_at_the_score_of_the_baseline() -> None:
    """The gradient of a square is zero at its least value."""
    masked = torch.zeros(2, 1, 16, 16)
    found = loss(0.0, pictures(2)).gradient(masked, torch.arange(2), removal=torch.tensor([True, True]))
    torch.testing.assert_close(found, masked, rtol=0, atol=1e-6)
    assert loss(0.0, pictures(2)).gradient(masked, torch.arange(2), removal=torch.tensor([True, False]))[1].abs().max() > 1e-3
