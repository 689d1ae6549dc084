"""Ranks of pixels, and the boundaries of the curves' steps."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hdm_core import METRICS, Classifier, MetricSettings, evaluate
from hdm_core.masking.ops import ranks
from hdm_core.metrics.curves import Protocol
from hdm_core.metrics.pixels import boundaries
from hdm_core.metrics.registry import chosen_metrics
from tests.support.slow_metrics import HEIGHT, WIDTH, descending, half_up, linear
from tests.support.tiny_networks import Linear, pictures


@given(st.integers(1, 100_000))
def test_the_boundaries_are_101_exactly_rounded_counts(pixels: int) -> None:
    found = boundaries(pixels)
    assert found == [half_up(Fraction(i, 100), pixels) for i in range(101)]
    assert found[0] == 0
    assert found[-1] == pixels
    steps = {after - before for before, after in pairwise(found)}
    assert max(steps) - min(steps) <= 1


@given(st.integers(1, 300), st.integers(1, 300))
def test_rises_boundaries_are_whole_rows(height: int, width: int) -> None:
    assert boundaries(height * width, height + 1) == list(range(0, height * width + 1, width))


@given(st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_ranks_are_a_stable_order(values: list[int]) -> None:
    maps = torch.tensor(values, dtype=torch.float32).reshape(1, 3, 4)
    found = ranks(maps).flatten().tolist()
    order = descending(maps)
    assert [found[pixel] for pixel in order] == list(range(12))


def test_ties_go_to_the_pixel_that_comes_first_in_row_order_also_in_large_maps() -> None:
    assert torch.equal(ranks(torch.zeros(2, 100, 90)), torch.arange(9000).reshape(1, 100, 90).expand(2, -1, -1))


@pytest.mark.parametrize(("height", "width"), [(7, 9), (5, 3), (10, 10), (16, 13)])
@pytest.mark.parametrize("flat", [True, False])
def test_k_pixels_are_exactly_k_pixels(height: int, width: int, flat: bool) -> None:
    """A network that counts the pixels shown: the logit is a thousandth of their number."""
    images = torch.ones(1, 1, height, width)
    maps = torch.ones(1, height, width) if flat else torch.rand(1, height, width, generator=torch.Generator().manual_seed(0))
    classifier = Classifier.from_module(Linear(torch.full((1, height, width), 1e-3)))
    found = evaluate(classifier, images, maps, torch.tensor([1]))

    def count(p: Tensor) -> list[int]:
        return (1000 * torch.logit(p.double())).round().int().flatten().tolist()

    total = height * width
    assert count(found.insertion) == boundaries(total)
    assert count(found.deletion) == [total - moved for moved in boundaries(total)]
    for removed in (80, 70):
        kept = found.deletion[:, 0] * (1 - found.values[f"average_drop_{removed}"])
        assert count(kept) == [half_up(1 - Fraction(removed, 100), total)]


@given(
    levels=st.lists(st.integers(0, 5), min_size=HEIGHT * WIDTH, max_size=HEIGHT * WIDTH),
    heights=st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6, unique=True),
    protocol=st.sampled_from(["paper", "rise"]),
)
def test_only_the_order_of_a_map_counts(levels: list[int], heights: list[float], protocol: Protocol) -> None:
    index = torch.tensor(levels).reshape(1, HEIGHT, WIDTH)
    both = torch.cat([index / 5, torch.tensor(sorted(heights))[index]])
    one = torch.zeros(2, dtype=torch.int64)
    settings = MetricSettings(protocol=protocol)
    found = evaluate(linear(), pictures(1, HEIGHT, WIDTH), both, torch.tensor([1]), settings=settings, index=one)
    for curve in (found.deletion, found.insertion, *(found.values[name] for name in chosen_metrics(None) if not METRICS[name].map_only)):
        assert torch.equal(curve[0], curve[1])
