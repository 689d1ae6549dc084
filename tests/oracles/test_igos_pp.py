"""iGOS++ against a slow version of the authors' loop: one graph of autograd per term."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.baselines import baseline_image
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import pictures, smooth

TARGETS = [2, 0, 1]


def g(mask: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(mask, size=(height, width), mode="bilinear", align_corners=False)


def slow_igos_pp(
    network: nn.Module, image: Tensor, baseline: Tensor, target: int, cells: tuple[int, int], steps: int, points: int
) -> Tensor:
    """Descend one image's masks without noise, the loss written out as in the paper."""
    height, width = image.shape[-2:]
    deletion, insertion = (torch.ones(1, 1, *cells, dtype=image.dtype, requires_grad=True) for _ in range(2))
    last = [torch.zeros_like(deletion), torch.zeros_like(insertion)]

    def score(front: Tensor, back: Tensor, mask: Tensor) -> Tensor:
        shares = [s / points * mask for s in range(1, points + 1)]
        return sum(network(front * m + back * (1 - m)).softmax(1)[0, target] for m in shares) / points

    def total_variation(mask: Tensor) -> Tensor:
        down, right = mask.diff(dim=2).square().mean(), mask.diff(dim=3).square().mean()
        pixels = g(mask, height, width)[0, 0]
        grey = image.mean(0)
        weigh = [torch.exp(-(grey.diff(dim=axis) ** 2) / 0.01) for axis in (0, 1)]
        below, beside = (w * pixels.diff(dim=axis).square() for axis, w in enumerate(weigh))
        return (down + right + below.mean() + beside.mean()) / 2

    for i in range(steps):
        up_d, up_i = g(deletion, height, width), g(insertion, height, width)
        x, b = image[None], baseline[None]
        product = up_d * up_i
        scores = score(x, b, product) - score(b, x, product) + score(x, b, up_d) - score(b, x, up_i)
        mask = deletion * insertion
        loss = scores / 2 + 1.0 * (1 - mask).abs().mean() + 20.0 * total_variation(mask)
        gradients = torch.autograd.grad(loss, [deletion, insertion])
        with torch.no_grad():
            for number, (each, gradient) in enumerate(zip((deletion, insertion), gradients, strict=True)):
                step = each - RATE * gradient
                each.copy_((step + i / (i + 3) * (step - last[number])).clamp(0, 1))
                last[number] = step
    return g(1 - deletion * insertion, height, width).clamp(0, 1)[0, 0].detach()


RATE = 3.0


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("size", "cells"), [((16, 16), (4, 4)), ((16, 24), (4, 6))])
@pytest.mark.parametrize("baseline", ["mean", "blur"])
def test_igos_pp_is_the_loss_of_the_paper(size: tuple[int, int], cells: tuple[int, int], baseline: str) -> None:
    network, images = smooth(), pictures(3, *size)
    classifier = Classifier.from_module(network)
    settings = {
        "cells": 4,
        "steps": 5,
        "points": 3,
        "noise": 0.0,
        "learning_rate": RATE * 28**2 / (cells[0] * cells[1]),
        "l1": 1.0,
        "baseline": baseline,
    }
    found = explain(classifier, images, "igos_pp", targets=TARGETS, batch=5, **settings)
    slow = smooth().requires_grad_(False)
    replaced = baseline_image(baseline, classifier, images).expand_as(images)  # type: ignore[arg-type]
    expected = [slow_igos_pp(slow, *each, cells, 5, 3) for each in zip(images, replaced, TARGETS, strict=True)]
    raw = torch.stack(expected)
    torch.testing.assert_close(found.maps.double(), raw, rtol=0, atol=1e-5)
    assert raw.amax() > 0.05  # the masks moved
    assert found.passes == 4 * 3 * 5


def test_what_igos_pp_removes_takes_the_class_away_and_keeping_it_keeps_the_class() -> None:
    network, images = FAMILIES["resnet"](), pictures(4, 32)
    explanation = explain(network, images, "igos_pp", targets=0, steps=20, points=4, cells=8, l1=0.1, tv=0.1, learning_rate=60.0)
    maps = explanation.maps[:, None]
    baseline = baseline_image("blur", Classifier.from_module(network), images)
    with torch.no_grad():
        kept, removed = (network(m * images + (1 - m) * baseline).softmax(1)[:, 0] for m in (maps, 1 - maps))
    assert (kept > removed).all()


def test_noise_is_the_same_for_every_image_and_batch() -> None:
    network, images = FAMILIES["resnet"](), pictures(5, 32)
    settings = {"steps": 4, "points": 3, "cells": 6}
    together = explain(network, images, "igos_pp", targets=1, **settings).maps
    for count in (1, 2, 3):
        assert torch.equal(explain(network, images[:count], "igos_pp", targets=1, **settings).maps, together[:count])
