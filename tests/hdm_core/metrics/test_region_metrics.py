"""Pointing game, overlap and ranked pixels against loops, by hand, and where they do not apply."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hdm_core import METRICS, MetricSettings, evaluate
from hdm_core.metrics.overlap import iou_best, iou_fixed
from hdm_core.metrics.pixel_ranking import average_precision, rank_accuracy, top_energy
from hdm_core.metrics.pointing import dilated, pointing_game
from tests.support.slow_metrics import HEIGHT, REGION, WIDTH, linear, maps_for
from tests.support.tiny_networks import pictures

NAMES = ("pointing_game", "average_precision", "rank_accuracy", "top15_energy", "iou_best", "iou_fixed")

PAIRS = st.integers(0, 2**32).map(lambda seed: random_pair(torch.Generator().manual_seed(seed)))


def random_pair(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a map of few levels, so with ties, and a region that is not empty, (1, 5, 6)."""
    levels = int(torch.randint(2, 9, (), generator=generator))
    saliency = torch.randint(0, levels, (1, 5, 6), generator=generator).float() / (levels - 1)
    saliency[0, 0, :2] = torch.tensor([0.0, 1.0])  # not flat
    region = torch.rand(1, 5, 6, generator=generator) > 0.7
    region[0, 2, 3] = True
    return saliency, region


def flat_lists(saliency: Tensor, region: Tensor) -> tuple[list[float], list[bool]]:
    return saliency.flatten().tolist(), region.flatten().tolist()


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_average_precision_and_overlap_are_those_of_all_thresholds(pair: tuple[Tensor, Tensor]) -> None:
    values, inside = flat_lists(*pair)
    precision, overlap = {}, {}
    for threshold in set(values):
        shown = [value >= threshold for value in values]
        hits = sum(s and i for s, i in zip(shown, inside, strict=True))
        precision[threshold] = hits / sum(shown)
        overlap[threshold] = hits / sum(s or i for s, i in zip(shown, inside, strict=True))
    expected = fmean(precision[value] for value, i in zip(values, inside, strict=True) if i)
    assert float(average_precision(*pair)) == pytest.approx(expected)
    assert float(iou_best(*pair)) == pytest.approx(max(overlap.values()))
    assert float(iou_fixed(*pair)) == pytest.approx(overlap[min(value for value in values if value >= 0.5)])


@given(PAIRS)
@settings(deadline=None, max_examples=60)
def test_the_top_pixels_are_the_mean_over_all_orders_of_ties(pair: tuple[Tensor, Tensor]) -> None:
    saliency, region = pair
    values, inside = flat_lists(saliency, region)

    def weights(count: int) -> list[float]:
        limit = sorted(values, reverse=True)[count - 1]
        above, equal = sum(value > limit for value in values), sum(value == limit for value in values)
        return [1.0 if value > limit else (count - above) / equal if value == limit else 0.0 for value in values]

    size = sum(inside)
    expected = sum(w for w, i in zip(weights(size), inside, strict=True) if i) / size
    assert float(rank_accuracy(saliency, region)) == pytest.approx(expected)
    energies = [w * value for w, value in zip(weights(5), values, strict=True)]  # round(0.15 * 30), halves up
    expected = sum(e for e, i in zip(energies, inside, strict=True) if i) / sum(energies)
    assert float(top_energy(saliency, region)) == pytest.approx(expected)


def test_a_map_that_is_the_region_has_the_best_of_all() -> None:
    found = evaluate(linear(), pictures(1, HEIGHT, WIDTH), REGION.float(), [1], REGION, MetricSettings(names=NAMES)).values
    # Of the top 15%, nine pixels, all twelve of the region are equal.
    assert {name: float(values) for name, values in found.items()} == pytest.approx(dict.fromkeys(NAMES, 1.0))


def test_by_hand() -> None:
    saliency = torch.tensor([[[1.0, 0.75, 0.5, 0.25, 0.0]]])
    region = torch.tensor([[[True, False, True, False, False]]])
    # Precision 1 at the first hit and 2/3 at the second.
    assert float(average_precision(saliency, region)) == pytest.approx(5 / 6)
    assert float(rank_accuracy(saliency, region)) == 0.5
    assert float(iou_best(saliency, region)) == pytest.approx(2 / 3)
    assert float(iou_fixed(saliency, region)) == pytest.approx(2 / 3)


def test_the_tolerance_is_15_pixels_of_224() -> None:
    region = torch.zeros(1, 224, 224, dtype=torch.bool)
    region[0, 100, 100] = True
    for (row, column), hit in {(100, 115): 1, (100, 116): 0, (109, 112): 1, (111, 111): 0, (85, 100): 1}.items():
        saliency = torch.zeros(1, 224, 224)
        saliency[0, row, column] = 1
        assert float(pointing_game(saliency, region)) == hit, (row, column)
    wide = torch.zeros(1, 112, 448, dtype=torch.bool)  # half of the shorter side: 7.5 pixels, rounded up
    wide[0, 50, 100] = True
    for column, hit in ((108, 1), (109, 0)):
        saliency = torch.zeros(1, 112, 448)
        saliency[0, 50, column] = 1
        assert float(pointing_game(saliency, wide)) == hit


def test_of_equal_maxima_the_share_that_hits_counts() -> None:
    saliency, region = torch.zeros(1, 5, 6), torch.zeros(1, 5, 6, dtype=torch.bool)
    saliency[0, 0, :4] = 1
    region[0, 0, 1:4] = True
    assert float(pointing_game(saliency, region)) == 0.75


def test_dilation_is_a_disc() -> None:
    region = torch.zeros(1, 21, 21, dtype=torch.bool)
    region[0, 4, 3] = region[0, 15, 20] = True
    near = dilated(region, 4)[0]
    for y in range(21):
        for x in range(21):
            assert bool(near[y, x]) == any((y - a) ** 2 + (x - b) ** 2 <= 16 for a, b in ((4, 3), (15, 20)))


@pytest.mark.parametrize("value", [0.0, 0.5, torch.nan])
def test_a_flat_map_ranks_nothing(value: float) -> None:
    images, regions = pictures(2, HEIGHT, WIDTH), REGION.expand(2, -1, -1)
    maps = maps_for(images)
    maps[0] = value
    found = evaluate(linear(), images, maps, [0, 1], regions, MetricSettings(names=NAMES)).values
    for name in NAMES:
        assert found[name].isnan().tolist() == [True, False], name


def test_an_image_without_a_region_has_none_of_them() -> None:
    images = pictures(2, HEIGHT, WIDTH)
    regions = torch.cat([~REGION & REGION, REGION])
    names = tuple(name for name, metric in METRICS.items() if metric.needs_region)
    assert set(names) == {*NAMES, "proportion", "background_share"}
    found = evaluate(linear(), images, maps_for(images), [0, 1], regions, MetricSettings(names=names)).values
    for name in names:
        assert found[name].isnan().tolist() == [True, False], name
