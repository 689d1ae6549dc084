"""Ranks, Friedman's test and Nemenyi's critical difference against published values and scipy."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from pipeline.tables.ranks import critical_difference, friedman, image_ranks, indistinguishable, nemenyi_quantile, rank_methods

METHODS = ("hdm", "grad_cam", "gradient", "rise")


def records_of(values: np.ndarray, methods: tuple[str, ...] = METHODS) -> pa.Table:
    """Records with deletion_auc (images, methods); NaN is null; insertion_auc is 1 minus it."""
    rows = [
        {"method": method, "row": row, "deletion_auc": value, "insertion_auc": None if value is None else 1 - value}
        for row, image in enumerate(values.tolist())
        for method, value in zip(methods, (None if math.isnan(each) else each for each in image), strict=True)
    ]
    types = [("method", pa.string()), ("row", pa.int64()), ("deletion_auc", pa.float64()), ("insertion_auc", pa.float64())]
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


@pytest.mark.parametrize(("methods", "published"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_the_quantile_is_the_published_one(methods: int, published: float) -> None:
    assert nemenyi_quantile(methods) == pytest.approx(published, abs=0.001)  # 2.3437 is printed as 2.343


@pytest.mark.parametrize("methods", [2, 7, 20, 50])
def test_scipy_has_the_same_quantile(methods: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert nemenyi_quantile(methods) == pytest.approx(stats.studentized_range.ppf(0.95, methods, 1e8) / math.sqrt(2), abs=1e-5)


def test_a_published_critical_difference() -> None:
    # Demsar 2006, Section 3.2.2: four classifiers on 14 data sets, 2.569 sqrt(4 * 5 / (6 * 14)) = 1.25.
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize("digits", [None, 1])
def test_scipy_has_the_same_friedman_test(digits: int | None) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal([0, 0.2, 0.4, 0.4], 1, (30, 4))
    if digits is not None:
        values = values.round(digits)
    found = friedman("deletion_auc", METHODS, image_ranks(values, lower_is_better=True))
    expected = stats.friedmanchisquare(*values.T)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_methods_that_are_always_equal_are_alike() -> None:
    found = friedman("deletion_auc", METHODS, image_ranks(np.ones((5, 4)), lower_is_better=True))
    assert (found.statistic, found.p) == (0.0, 1.0)
    assert set(found.ranks.values()) == {2.5}


def test_the_first_rank_is_the_best_and_a_missing_value_takes_the_image_out() -> None:
    values = np.array([[0.1, 0.3, 0.2], [0.1, 0.1, 0.5], [math.nan, 1.0, 2.0]])
    less, more = image_ranks(values, lower_is_better=True), image_ranks(values, lower_is_better=False)
    assert less[:2].tolist() == [[1, 3, 2], [1.5, 1.5, 3]]
    assert more[:2].tolist() == [[3, 1, 2], [2.5, 2.5, 1]]
    assert np.isnan(less[2]).all()


def test_groups_are_the_largest_sets_within_the_distance() -> None:
    ranks = {"a": 1.0, "b": 1.5, "c": 2.2, "d": 4.0, "e": 4.1}
    assert indistinguishable(ranks, 1.0) == [["a", "b"], ["b", "c"], ["d", "e"]]
    assert indistinguishable(ranks, 1.3) == [["a", "b", "c"], ["d", "e"]]
    assert indistinguishable(ranks, 0.05) == []
    assert indistinguishable(ranks, 10) == [list("abcde")]


def test_a_runs_ranks_are_without_controls_and_over_complete_images() -> None:
    values = np.array([[0.1, 0.2, 0.3, 0.4, 0.0]] * 5)
    values[4, 1] = math.nan
    rankings, means = rank_methods(records_of(values, (*METHODS, "center")))
    assert [(each.metric, each.n) for each in rankings] == [("deletion_auc", 4), ("insertion_auc", 4)]
    for each in rankings:
        assert each.ranks == {"hdm": 1.0, "grad_cam": 2.0, "gradient": 3.0, "rise": 4.0}
    assert [(each.method, each.rank, each.low, each.high, each.n) for each in means] == [
        (method, rank, rank, rank, 4) for rank, method in enumerate(METHODS, 1)
    ]


def test_the_mean_rank_has_an_interval_over_the_images() -> None:
    values = np.random.default_rng(2).normal([0, 0.5, 0.5, 2], 1, (40, 4))
    _, means = rank_methods(records_of(values))
    ranks = image_ranks(values, lower_is_better=True)
    assert {each.method: each.rank for each in means} == pytest.approx(dict(zip(METHODS, ranks.mean(0), strict=True)))
    assert means[0].method == "hdm"
    assert means[-1].method == "rise"
    assert all(each.low < each.rank < each.high for each in means)


@pytest.mark.parametrize(
    ("values", "methods"),
    [
        (np.ones((1, 4)), METHODS),
        (np.ones((5, 2)), METHODS[:2]),
        (np.ones((5, 3)), ("hdm", "grad_cam", "center")),
        (np.ones((0, 4)), METHODS),
    ],
)
def test_with_too_few_images_or_methods_there_are_no_ranks(values: np.ndarray, methods: tuple[str, ...]) -> None:
    assert rank_methods(records_of(values, methods)) == ([], [])


def test_a_method_without_any_value_does_not_take_the_others_out() -> None:
    values = np.array([[0.1, 0.2, 0.3, math.nan]] * 3)
    rankings, means = rank_methods(records_of(values))
    assert list(rankings[0].ranks) == ["hdm", "grad_cam", "gradient"]
    assert means == []
