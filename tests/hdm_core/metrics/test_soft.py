"""Drop, gain and increase of the image that is multiplied by its map."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from hdm_core import Classifier, MetricSettings, evaluate
from hdm_core.masking.baselines import baseline_image
from hdm_core.metrics.soft import average_gain
from tests.support.slow_metrics import HEIGHT, WIDTH, linear, maps_for, probability
from tests.support.tiny_networks import Linear, pictures

NAMES = ("average_drop_soft", "average_gain_soft", "increase_soft")


@pytest.mark.parametrize("baseline", ["mean", "black", "blur", "noise"])
def test_the_three_are_the_slow_ones(baseline: Any) -> None:
    images, targets, index, classifier = 3 * pictures(3, HEIGHT, WIDTH), [0, 1, 1], [0, 1, 2, 1, 0], linear()
    maps, removed = maps_for(torch.zeros(5)), baseline_image(baseline, classifier, images).expand_as(images)
    settings = MetricSettings(names=NAMES, baseline=baseline)
    found = evaluate(classifier, images, maps, targets, settings=settings, index=index, batch=2).values
    for n, b in enumerate(index):
        mixed = removed[b].clone()
        for y in range(HEIGHT):
            for x in range(WIDTH):
                mixed[:, y, x] = maps[n, y, x] * images[b, :, y, x] + (1 - maps[n, y, x]) * removed[b, :, y, x]
        clean, masked = probability(images[b], targets[b], 0.3), probability(mixed, targets[b], 0.3)
        assert float(found["average_drop_soft"][n]) == pytest.approx(max(0, clean - masked) / clean, abs=2e-6)
        assert float(found["average_gain_soft"][n]) == pytest.approx(max(0, masked - clean) / (1 - clean), abs=2e-6)
        assert float(found["increase_soft"][n]) == float(masked > clean)


def test_drop_and_gain_by_hand() -> None:
    # Two pixels of ln 3 and -ln 9; halves of the second are shown: logit ln 3 - ln 9 / 2 = 0.
    image, saliency = torch.tensor([math.log(3), -math.log(9)]).view(1, 1, 1, 2), torch.tensor([[[1.0, 0.5]]])
    classifier = Classifier.from_module(Linear(torch.ones(1, 1, 2)))
    settings = MetricSettings(names=NAMES)
    up, down = (evaluate(classifier, image, saliency, [target], settings=settings).values for target in (1, 0))
    # Class 1: Y = 1/4, O = 1/2: a gain of (1/4) / (3/4). Class 0: Y = 3/4, O = 1/2: a drop of (1/4) / (3/4).
    assert [float(up[name]) for name in NAMES] == pytest.approx([0, 1 / 3, 1], abs=1e-6)
    assert [float(down[name]) for name in NAMES] == pytest.approx([1 / 3, 0, 0], abs=1e-6)


def test_a_certain_class_has_no_gain() -> None:
    gain = average_gain(torch.tensor([1.0, 1.0, 0.5, torch.nan]), torch.tensor([0.5, 1.2, 0.75, 0.5]))
    assert gain.isnan().tolist() == [True, True, False, True]
    assert float(gain[2]) == 0.5


@pytest.mark.parametrize("value", [0.0, 1.0, torch.nan])
def test_a_flat_map_has_none_of_the_three(value: float) -> None:
    images = pictures(2, HEIGHT, WIDTH)
    maps = maps_for(images)
    maps[0] = value
    found = evaluate(linear(), images, maps, [0, 1], settings=MetricSettings(names=NAMES)).values
    for name in NAMES:
        assert found[name].isnan().tolist() == [True, False], name


def test_a_regressions_gain_does_not_apply() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * HEIGHT * WIDTH, 1))
    images = pictures(1, HEIGHT, WIDTH)
    classifier = Classifier.from_module(network, problem_type="regression")
    found = evaluate(classifier, images, maps_for(images), 0, settings=MetricSettings(names=NAMES)).values
    assert found["average_gain_soft"].isnan().all(), "the whole image has 1, the most there is"
    assert not found["average_drop_soft"].isnan().any()
