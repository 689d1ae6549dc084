from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import upsample
from hdm_core.masking.optimizer import optimize_masks
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.settings import DMSettings
from tests.support import reference
from tests.support.tiny_networks import pictures, smooth

pytestmark = pytest.mark.usefixtures("double")

SETTINGS = DMSettings(sizes=(3,), ratios=(2,), steps=7, learning_rate=0.1, eta=2.0, tau=0.5)
TARGETS = torch.tensor([2, 0, 1])


def consistency(
    images: Tensor, baseline: Tensor | None = None, *, activation: str = "logit", batch: int = 4, relative: bool = False, noise: float = 0.0
) -> ConsistencyLoss:
    baseline = torch.zeros(1, images.shape[1], 1, 1) if baseline is None else baseline
    network = smooth().requires_grad_(False)
    return ConsistencyLoss(network, images, TARGETS[: len(images)], baseline, activation, batch, PassCounter(), relative, noise)


def gradient(loss: ConsistencyLoss, masks: Tensor) -> Tensor:
    """Return dJ/dM for masks (E, B, H, W); entry e, b belongs to image b."""
    index = torch.arange(masks.shape[1]).repeat(len(masks))
    return loss.gradient(masks.flatten(0, 1)[:, None], index).reshape(masks.shape)


def score_of(target: int, activation: str = "logit") -> reference.Score:
    network = smooth().requires_grad_(False)

    def score(image: Tensor) -> Tensor:
        logits = network(image[None])[0]
        return (logits.exp() / logits.exp().sum() if activation == "probability" else logits)[target]

    return score


@pytest.mark.parametrize("activation", ["logit", "probability"])
@pytest.mark.parametrize("kind", ["grey", "one per image"])
def test_the_gradient_is_that_of_j_for_every_mask_independently(activation: str, kind: str) -> None:
    images = pictures(3, 8, 10)
    baseline = torch.full((1, 3, 1, 1), 0.2) if kind == "grey" else 0.5 * images.flip(3)
    masks = torch.rand(4, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    found = gradient(consistency(images, baseline, activation=activation), masks)
    for b, image in enumerate(images):
        shown = baseline[b % len(baseline)]
        score = score_of(int(TARGETS[b]), activation)
        for e in range(4):
            mask = masks[e, b].clone().requires_grad_()
            ((score(shown + mask * (image - shown)) - score(image)) ** 2).backward()
            torch.testing.assert_close(found[e, b], mask.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_the_batch_size_changes_nothing(batch: int) -> None:
    images = pictures(3, 8)
    masks = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        gradient(consistency(images, batch=batch), masks), gradient(consistency(images, batch=7), masks), rtol=1e-9, atol=1e-12
    )


def test_batches_are_at_most_as_large_as_set() -> None:
    seen: list[int] = []
    loss = consistency(pictures(3, 8), batch=4)
    loss.network.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    gradient(loss, torch.rand(5, 3, 8, 8))
    assert seen == [4, 4, 4, 3]


def test_passes_are_counted_and_reported() -> None:
    reported: list[int] = []
    loss = consistency(pictures(2, 8))
    loss.passes = PassCounter(reported.append)
    gradient(loss, torch.rand(5, 2, 8, 8))
    gradient(loss, torch.rand(1, 2, 8, 8))
    assert reported == [10, 2]
    assert loss.passes.total == 12


def test_no_gradient_reaches_the_weights() -> None:
    loss = consistency(pictures(2, 8))
    optimize_masks([torch.full((2, 1, 3, 3), 0.5)], [None], loss, SETTINGS)
    assert all(parameter.grad is None for parameter in loss.network.parameters())


@pytest.mark.parametrize("guided", [False, True], ids=["Eq. 6", "Eq. 8"])
def test_optimised_masks_equal_the_reference(guided: bool) -> None:
    images = pictures(3, 12, 10)
    generator = torch.Generator().manual_seed(1)
    sizes = [2, 3, 5]
    start = [torch.rand(3, 1, size, size, generator=generator) for size in sizes]
    guides = [torch.rand(3, 1, size, size, generator=generator) if guided else None for size in sizes]
    trained, _ = optimize_masks(start, guides, consistency(images), SETTINGS)
    block = reference.HDM((3,), (2,), SETTINGS.steps, SETTINGS.learning_rate, SETTINGS.eta, SETTINGS.tau, SETTINGS.keep_fraction)
    for e in range(3):
        for b, image in enumerate(images):
            guide = None if guides[e] is None else guides[e][b, 0]
            expected, _ = block.train(score_of(int(TARGETS[b])), image, torch.zeros(3, 1, 1), start[e][b, 0], guide)
            # float64, the same sums in another order: Adam's division by |g| magnifies 1e-16 where g is small, not beyond 1e-8 here.
            torch.testing.assert_close(trained[e][b, 0], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("guided", [False, True], ids=["Eq. 6", "Eq. 8"])
@pytest.mark.parametrize("removal", [0.0, 0.3])
def test_a_relative_loss_with_noise_and_removal_equals_the_reference(guided: bool, removal: float) -> None:
    images, settings = pictures(3, 12, 10), SETTINGS.model_copy(update={"relative": True, "noise": 0.5, "removal": removal, "eta": 0.5})
    generator = torch.Generator().manual_seed(1)
    start, guide = (torch.rand(3, 1, 3, 3, generator=generator) for _ in range(2))
    loss, again = (consistency(images, relative=True, noise=0.5) for _ in range(2))
    (trained,), _ = optimize_masks([start], [guide if guided else None], loss, settings)
    block = reference.HDM(
        **{name: getattr(settings, name) for name in ("sizes", "ratios", "steps", "learning_rate", "eta", "tau", "keep_fraction")},
        relative=True,
        removal=removal,
        backgrounds=[[background[0] for background in again.noise_backgrounds(settings.steps)]],
    )
    for b, image in enumerate(images):
        seen = guide[b, 0] if guided else None
        expected, _ = block.train(score_of(int(TARGETS[b])), image, torch.zeros(3, 1, 1), start[b, 0], seen)
        torch.testing.assert_close(trained[b, 0], expected, rtol=0, atol=1e-8)
    assert loss.passes.total == 3 * settings.steps * (2 if removal else 1)


def test_the_initial_masks_are_not_changed() -> None:
    start = torch.full((2, 1, 3, 3), 0.5)
    (trained,), _ = optimize_masks([start], [None], consistency(pictures(2, 8)), SETTINGS)
    assert torch.equal(start, torch.full((2, 1, 3, 3), 0.5))
    assert not torch.equal(trained, start)
    assert not trained.requires_grad


def test_masks_stay_between_zero_and_one() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 0.9, "steps": 5})
    for size in (2, 4):
        (trained,), _ = optimize_masks([torch.full((3, 1, size, size), 0.5)], [None], consistency(pictures(3, 8)), settings)
        assert trained.min() >= 0
        assert trained.max() <= 1
        assert ((trained == 0) | (trained == 1)).any()


def test_training_lowers_the_loss() -> None:
    images = pictures(3, 12)
    settings = SETTINGS.model_copy(update={"steps": 40, "learning_rate": 0.03, "eta": 0.3})
    start = torch.full((3, 1, 4, 4), 0.5)
    (trained,), _ = optimize_masks([start], [None], consistency(images), settings)

    def loss(mask: Tensor, b: int) -> float:
        applied = upsample(mask[b : b + 1], 12, 12)[0]
        score = score_of(int(TARGETS[b]))
        return float((score(applied * images[b]) - score(images[b])) ** 2 + settings.eta * applied.mean())

    for b in range(3):
        assert loss(trained, b) < loss(start, b)


def test_sparsity_alone_empties_a_mask_and_consistency_alone_does_not() -> None:
    images = pictures(2, 8)
    heavy = SETTINGS.model_copy(update={"eta": 1e6, "steps": 20})
    light = SETTINGS.model_copy(update={"eta": 0.0, "steps": 20})
    start = torch.full((2, 1, 3, 3), 0.5)
    assert torch.equal(optimize_masks([start], [None], consistency(images), heavy)[0][0], torch.zeros(2, 1, 3, 3))
    assert optimize_masks([start], [None], consistency(images), light)[0][0].mean() > 0.1
