"""Sparseness, complexity and the shares of places, which read the map alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hdm_core import MetricSettings, evaluate
from hdm_core.metrics.complexity import entropy
from hdm_core.metrics.places import inner_rectangle
from hdm_core.metrics.sparseness import gini
from tests.support.slow_metrics import HEIGHT, REGION, WIDTH, linear, maps_for
from tests.support.tiny_networks import pictures

NAMES = ("sparseness", "complexity", "border_share", "centre_share", "background_share")


def found_for(maps: Tensor) -> dict[str, Tensor]:
    count = len(maps)
    regions = REGION.expand(count, -1, -1)
    return evaluate(linear(), pictures(count, HEIGHT, WIDTH), maps, [1] * count, regions, MetricSettings(names=NAMES)).values


def test_sparseness_and_complexity_are_the_slow_ones() -> None:
    maps = maps_for(torch.zeros(3))
    maps[1] = maps[1] ** 8
    maps[2, 2:] = 0
    found = found_for(maps)
    for n, saliency in enumerate(maps):
        values, total = saliency.flatten().double().tolist(), float(saliency.double().sum())
        # The Gini index as the mean absolute difference of all pairs, over twice the mean.
        differences = sum(abs(a - b) for a in values for b in values)
        assert float(found["sparseness"][n]) == pytest.approx(differences / (2 * len(values) * total), abs=1e-6)
        expected = -sum(value / total * math.log(value / total) for value in values if value)
        assert float(found["complexity"][n]) == pytest.approx(expected, abs=1e-5)


def test_sparseness_and_complexity_by_hand() -> None:
    single, equal = torch.zeros(1, 2, 4), torch.ones(1, 2, 4)
    single[0, 1, 2] = 0.25
    assert float(gini(single)) == pytest.approx(7 / 8)
    assert float(gini(equal)) == pytest.approx(0, abs=1e-12)
    assert float(entropy(single)) == 0
    assert float(entropy(equal)) == pytest.approx(math.log(8))
    halves = torch.tensor([[[0.5, 0.5, 0.0, 0.0]]])
    assert float(entropy(halves)) == pytest.approx(math.log(2))
    assert float(gini(halves)) == pytest.approx(0.5)


def test_shares_of_places_by_hand() -> None:
    saliency = torch.zeros(1, HEIGHT, WIDTH)  # 7 x 9: the band is 1 pixel, the centre 2 .. 4 by 2 .. 6
    saliency[0, 0, 4], saliency[0, 3, 4], saliency[0, 1, 1] = 0.5, 1.0, 0.5
    found = found_for(saliency)
    assert float(found["border_share"]) == 0.25
    assert float(found["centre_share"]) == 0.5
    assert float(found["background_share"]) == 0.5


def test_the_band_and_the_centre_of_an_image_of_224() -> None:
    assert int(inner_rectangle(224, 224, 10, torch.device("cpu")).sum()) == (224 - 2 * 22) ** 2
    assert int(inner_rectangle(224, 224, 25, torch.device("cpu")).sum()) == 112**2


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_a_map_without_energy_has_none_of_them(value: float) -> None:
    maps = maps_for(torch.zeros(2))
    maps[0] = value
    for name, values in found_for(maps).items():
        assert values.isnan().tolist() == [True, False], name


def test_a_constant_map_is_neither_sparse_nor_complex() -> None:
    found = found_for(torch.full((1, HEIGHT, WIDTH), 0.5))
    assert found["sparseness"].isnan().all()
    assert found["complexity"].isnan().all()
    assert float(found["background_share"]) == pytest.approx(51 / 63), "the share of the area, as the proportion has it"
