"""Proportion against hand-computed values, and where it does not apply."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hdm_core import evaluate
from hdm_core.metrics.localisation import proportion
from tests.support.slow_metrics import HEIGHT, REGION, WIDTH, linear, maps_for
from tests.support.tiny_networks import pictures


def test_all_energy_inside_is_one_and_none_is_zero() -> None:
    inside = REGION.float() * maps_for(REGION)
    assert proportion(inside, REGION).tolist() == [1]
    assert proportion(maps_for(REGION) * ~REGION, REGION).tolist() == [0]


REGIONS = st.lists(st.booleans(), min_size=12, max_size=12).filter(any).map(lambda cells: torch.tensor(cells).reshape(1, 3, 4))


@given(REGIONS)
def test_a_map_that_is_the_region_has_proportion_one(region: Tensor) -> None:
    assert proportion(region.float(), region).tolist() == [1]


@given(REGIONS, st.floats(2**-10, 1, width=16))
def test_a_flat_map_has_the_regions_share_of_the_area(region: Tensor, value: float) -> None:
    assert float(proportion(torch.full((1, 3, 4), value), region)) == pytest.approx(float(region.float().mean()))


def test_proportion_by_hand_and_independent_of_scale() -> None:
    maps = torch.tensor([[[0.5, 0.25], [0.25, 1.0]]])
    region = torch.tensor([[[True, False], [True, False]]])
    assert proportion(maps, region).tolist() == [0.375]
    assert proportion(maps / 8, region).tolist() == [0.375]


@pytest.mark.parametrize("regions", [None, torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)])
def test_without_a_region_proportion_does_not_apply(regions: Tensor | None) -> None:
    images = pictures(2, HEIGHT, WIDTH)
    found = evaluate(linear(), images, maps_for(images), torch.tensor([0, 1]), regions)
    assert found.values["proportion"].isnan().all()
    assert not found.values["deletion_auc"].isnan().any()


def test_an_empty_region_says_nothing_about_its_neighbours() -> None:
    images = pictures(2, HEIGHT, WIDTH)
    regions = torch.cat([~REGION & REGION, REGION])
    found = evaluate(linear(), images, torch.ones(2, HEIGHT, WIDTH), torch.tensor([0, 1]), regions).values["proportion"]
    assert found[0].isnan()
    assert float(found[1]) == pytest.approx(12 / 63)


def test_a_map_without_energy_has_no_proportion() -> None:
    assert proportion(torch.zeros(1, HEIGHT, WIDTH), REGION).isnan().all()
