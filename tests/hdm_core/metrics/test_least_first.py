"""Least first and SRG: the deletion in both orders, by brute force and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hdm_core import Classifier, MetricSettings, evaluate
from tests.support.slow_metrics import HEIGHT, WIDTH, linear, maps_for, slow_metrics
from tests.support.tiny_networks import Linear, pictures

BOTH = MetricSettings(names=("least_first_auc", "srg", "deletion_auc", "insertion_auc"))


@pytest.mark.parametrize("baseline", ["mean", "black"])
def test_least_first_is_the_deletion_of_the_reversed_map(baseline: str) -> None:
    images, targets, classifier = 3 * pictures(3, HEIGHT, WIDTH), [0, 1, 1], linear()
    # Each value once, so that the reversed map has exactly the reversed order.
    maps = torch.stack([torch.randperm(HEIGHT * WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in range(3)])
    maps = maps.view(3, HEIGHT, WIDTH) / (HEIGHT * WIDTH - 1)
    found = evaluate(classifier, images, maps, targets, settings=BOTH.model_copy(update={"baseline": baseline})).values
    removed = torch.zeros(3, 1, 1) if baseline == "mean" else classifier.preprocess.black()
    for b, target in enumerate(targets):
        most, _, _ = slow_metrics(images[b], maps[b], target, removed, 0.3)
        least, _, _ = slow_metrics(images[b], 1 - maps[b], target, removed, 0.3)
        # 63 pixels in steps of one per cent: a point of the curve read backwards may differ by the rounding of half a pixel.
        assert float(found["least_first_auc"][b]) == pytest.approx(least["deletion_auc"], abs=2e-3)
        assert float(found["srg"][b]) == pytest.approx(least["deletion_auc"] - most["deletion_auc"], abs=2e-3)
        assert float(found["srg"][b]) == pytest.approx(float(found["insertion_auc"][b] - found["deletion_auc"][b]), abs=1e-6)


def test_srg_by_hand() -> None:
    # One of 100 pixels holds all: p(1) is 3/4 with it and 1/2 without. Deletion: 3/4, then 100 points of 1/2; least first: the reverse.
    image = torch.zeros(1, 1, 10, 10)
    image[0, 0, 2, 3] = math.log(3)
    saliency = torch.arange(100.0).view(1, 10, 10) / 200
    saliency[0, 2, 3] = 1
    found = evaluate(Classifier.from_module(Linear(torch.ones(1, 10, 10))), image, saliency, [1], settings=BOTH).values
    most, least = 0.5 + 0.25 / 200, 0.75 - 0.25 / 200
    assert float(found["deletion_auc"]) == pytest.approx(most)
    assert float(found["least_first_auc"]) == pytest.approx(least)
    assert float(found["srg"]) == pytest.approx(least - most)


def test_in_the_protocol_rise_neither_applies() -> None:
    images = pictures(2, HEIGHT, WIDTH)
    found = evaluate(linear(), images, maps_for(images), [0, 1], settings=BOTH.model_copy(update={"protocol": "rise"})).values
    assert found["least_first_auc"].isnan().all()
    assert found["srg"].isnan().all()
    assert not found["deletion_auc"].isnan().any()
