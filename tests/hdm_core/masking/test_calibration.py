"""Calibration of a map: its ranks stay, its values are what the class lacks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.calibration import calibrated
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import ranks
from hdm_core.masking.pass_counter import PassCounter
from tests.support.tiny_networks import pictures, smooth

SHARES = (0.05, 0.2, 0.5)


class Sums(nn.Module):
    """Network whose logit 0 is the sum of the pixels, and logit 1 its negative."""

    def forward(self, images: Tensor) -> Tensor:
        total = images.sum((1, 2, 3))
        return torch.stack([total, -total], 1)


def loss_of(network: nn.Module, images: Tensor, targets: Tensor, activation: Any = "logit") -> ConsistencyLoss:
    return ConsistencyLoss(
        network.requires_grad_(False), images, targets, torch.zeros(1, images.shape[1], 1, 1), activation, 4, PassCounter()
    )


def slow(values: Tensor, image: Tensor, score: Any, shares: tuple[float, ...]) -> list[float]:
    """Calibrate one map (H, W) pixel by pixel."""
    flat = values.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda place: -flat[place])
    whole, nothing = score(image), score(0 * image)
    lacks, known = 1.0, [(0.0, 1.0)]
    for share in shares:
        mask = torch.zeros(len(flat), dtype=values.dtype)
        for place in order[: round(share * len(flat))]:
            mask[place] = 1
        kept = (score(mask.view(values.shape) * image) - nothing) / (whole - nothing)
        lacks = min(lacks, 1 - min(max(kept, 0.0), 1.0))
        known.append((round(share * len(flat)) / len(flat), lacks))
    known.append((1.0, 0.0))
    result = [0.0] * len(flat)
    for rank, place in enumerate(order):
        q = rank / len(flat)
        (left, before), (right, after) = next(pair for pair in pairwise(known) if pair[0][0] <= q < pair[1][0])
        result[place] = (1 - q) * (0.005 + 0.995 * (before + (after - before) * (q - left) / (right - left)))
    return result


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("size", [(12, 12), (7, 15)])
def test_calibration_equals_a_slow_version(size: tuple[int, int]) -> None:
    images, targets = pictures(3, *size), torch.tensor([2, 0, 1])
    maps = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    network = smooth()
    loss = loss_of(network, images, targets)
    found = calibrated(maps, loss, SHARES)
    usable = loss.reference > loss.baseline_scores
    assert usable.any()
    for b in range(3):
        score = lambda image, target=int(targets[b]): float(network(image[None])[0, target])  # noqa: E731
        expected = torch.tensor(slow(maps[b], images[b], score, SHARES)).view(size) if usable[b] else maps[b]
        torch.testing.assert_close(found[b], expected, rtol=0, atol=1e-9)
        assert torch.equal(ranks(found[b : b + 1]), ranks(maps[b : b + 1]))
    assert loss.passes.total == 3 * len(SHARES)


def test_calibration_by_hand() -> None:
    """The evidence is in two of ten pixels: the better one has three quarters of it."""
    image = torch.tensor([3.0, 1.0, *[0.0] * 8]).view(1, 1, 1, 10)
    maps = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]).view(1, 1, 10)
    found = calibrated(maps, loss_of(Sums(), image, torch.tensor([0])), (0.1, 0.2)).flatten()
    lacks = [1.0, 0.25, *[0.0] * 8]
    torch.testing.assert_close(found, torch.tensor([(1 - q / 10) * (0.005 + 0.995 * value) for q, value in enumerate(lacks)]))


@pytest.mark.parametrize("problem", ["flat", "nan", "no evidence"])
def test_a_map_that_cannot_be_calibrated_is_unchanged(problem: str) -> None:
    image = torch.rand(1, 1, 4, 4)
    maps = torch.full((1, 4, 4), 0.5) if problem == "flat" else torch.rand(1, 4, 4)
    if problem == "nan":
        maps[0, 0, 0] = torch.nan
    target = torch.tensor([1 if problem == "no evidence" else 0])
    assert torch.equal(calibrated(maps, loss_of(Sums(), image, target), SHARES).nan_to_num(), maps.nan_to_num())


@pytest.mark.parametrize("method", ["dm", "hdm"])
def test_methods_calibrate_their_final_map(method: str) -> None:
    classifier, images = Classifier.from_module(smooth()), pictures(3, 16)
    options: dict[str, Any] = {
        "preset": "fast",
        "sizes": (4,),
        "ratios": (2,),
        "steps": 3,
        "relative": True,
        "eta": 0.3,
        "keep_fraction": 1.0,
    }
    plain = explain(classifier, images, method, **options)
    found = explain(classifier, images, method, calibration=SHARES, **options)
    assert found.passes == plain.passes + 3
    assert torch.equal(ranks(found.maps), ranks(plain.maps))
    assert not torch.allclose(found.maps, plain.maps)
    if method == "hdm":
        assert torch.equal(found.stages, plain.stages)


def test_shares_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="the shares must rise"):
        explain(smooth(), pictures(1, 16), "dm", calibration=(0.5, 0.1))
