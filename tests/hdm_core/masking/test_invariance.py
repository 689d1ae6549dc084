"""Invariance of an image's masks to the batch, the other images and the memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.consistency import ConsistencyLoss, chunk_size
from hdm_core.masking.optimizer import MaskBank, optimize_masks
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.settings import DMSettings
from tests.support.tiny_networks import pictures, smooth

SIZES = (3, 5, 8, 11)
SETTINGS = DMSettings(sizes=SIZES, ratios=(2,), steps=6, learning_rate=0.1, relative=True, eta=1.0)
TARGETS = torch.tensor([3, 1, 4, 1, 5])


def train(network: nn.Module, images: Tensor, targets: Tensor, batch: int, passes: PassCounter | None = None) -> list[Tensor]:
    loss = ConsistencyLoss(network, images, targets, torch.zeros(1, 3, 1, 1), "logit", batch, passes or PassCounter(), relative=True)
    start = [torch.full((len(images), 1, size, size), 0.5) for size in SIZES]
    return optimize_masks(start, [None] * len(SIZES), loss, SETTINGS)[0]


@pytest.fixture(scope="module", params=["mobilenet_v2", "resnet18"])
def network(request: pytest.FixtureRequest) -> nn.Module:
    classifier = Classifier.from_torchvision(request.param)
    with classifier.folded(torch.zeros(1, 3, 64, 64)) as folded:
        return folded


@pytest.fixture(scope="module")
def expected(network: nn.Module) -> list[Tensor]:
    return train(network, pictures(5, 64), TARGETS, 8)


@pytest.mark.parametrize("batch", [2, 3, 4, 5, 8, 16])
def test_the_batch_changes_no_bit(network: nn.Module, expected: list[Tensor], batch: int) -> None:
    for found, value in zip(train(network, pictures(5, 64), TARGETS, batch), expected, strict=True):
        assert torch.equal(found, value)


def test_a_batch_larger_than_is_ever_chosen_on_a_cpu_changes_next_to_nothing(network: nn.Module, expected: list[Tensor]) -> None:
    # From about 20 rows on, some convolutions on one thread split their work differently and round differently.
    for found, value in zip(train(network, pictures(5, 64), TARGETS, 64), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-3)


@pytest.mark.parametrize("chosen", [[0], [3], [4, 2], [4, 3, 2, 1, 0], [1, 1, 2]], ids=str)
def test_the_other_images_change_no_bit(network: nn.Module, expected: list[Tensor], chosen: list[int]) -> None:
    for found, value in zip(train(network, pictures(5, 64)[chosen], TARGETS[chosen], 8), expected, strict=True):
        assert torch.equal(found, value[chosen])


class Small(nn.Module):
    """Network that runs out of memory beyond `images` images."""

    def __init__(self, network: nn.Module, images: int) -> None:
        super().__init__()
        self.network, self.images = network, images

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.images:
            raise torch.OutOfMemoryError("the images do not fit")
        return self.network(images)


def test_out_of_memory_halves_the_batch_and_loses_nothing() -> None:
    images, targets, passes = pictures(4, 16), torch.tensor([0, 1, 2, 0]), PassCounter()
    free = train(smooth(), images, targets, 16)
    network = Small(smooth(), 4)
    loss = ConsistencyLoss(network, images, targets, torch.zeros(1, 3, 1, 1), "logit", 4, passes, relative=True)
    loss.limit.size = 16  # does not fit; noticed during the optimisation
    tight, _ = optimize_masks([torch.full((4, 1, size, size), 0.5) for size in SIZES], [None] * len(SIZES), loss, SETTINGS)
    for found, value in zip(tight, free, strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-5)
    assert loss.batch == 4
    assert passes.total == 4 * len(SIZES) * SETTINGS.steps


def test_a_single_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        train(Small(smooth(), 0), pictures(2, 16), torch.tensor([0, 1]), 4)


def test_out_of_memory_is_handled_before_the_first_step_too() -> None:
    images, targets = pictures(4, 16), torch.tensor([0, 1, 2, 0])
    for found, value in zip(train(Small(smooth(), 2), images, targets, 16), train(smooth(), images, targets, 16), strict=True):
        torch.testing.assert_close(found, value, rtol=0, atol=1e-5)


def test_an_image_that_diverges_does_not_affect_the_others() -> None:
    images, settings = pictures(4, 16), {"sizes": (3, 5), "steps": 5, "relative": True, "eta": 1.0}
    spoilt = images.clone()
    spoilt[2, 0, 3, 3] = torch.nan
    classifier = Classifier.from_module(smooth())
    clean, found = (explain(classifier, x, "hdm", targets=[0, 1, 2, 0], **settings) for x in (images, spoilt))
    assert found.status == ["ok", "ok", "nan", "ok"]
    assert torch.equal(found.maps[[0, 1, 3]], clean.maps[[0, 1, 3]])
    assert torch.equal(found.maps[2], torch.zeros(16, 16))


@given(st.integers(1, 500), st.integers(1, 70))
def test_chunks_are_even_and_never_too_large(rows: int, batch: int) -> None:
    sizes, left = [], rows
    while left:
        sizes.append(chunk_size(left, batch))
        left -= sizes[-1]
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-rows // batch)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 20))
def test_a_banks_chunks_hold_every_mask_once_in_order(sizes: int, images: int, batch: int) -> None:
    bank = MaskBank([torch.zeros(images, 1, size + 1, size + 1) for size in range(sizes)])
    chunks = [[(e, i) for e, part in pieces for i in range(part.start, part.stop)] for pieces in bank.chunks(batch)]
    assert [row for rows in chunks for row in rows] == [(e, i) for e in range(sizes) for i in range(images)]
    assert max(map(len, chunks)) <= batch


def test_a_banks_masks_are_views_of_one_block() -> None:
    start = [torch.rand(2, 1, 3, 3), torch.rand(2, 1, 5, 4)]
    bank = MaskBank(start)
    for mask, value in zip(bank.masks, start, strict=True):
        assert torch.equal(mask, value)
    bank.values.mul_(2)
    assert torch.equal(bank.masks[1], 2 * start[1])
