"""Metrics of several baselines side by side, and Spearman's rank correlation of the methods."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tables.aggregate import TABLES, layout_table, remarks
from pipeline.tables.baselines import compare_baselines, spearman
from pipeline.tables.paper import paper_tables

MEANS = {
    # method -> deletion on mean, deletion on blur
    "hdm": (0.1, 0.3),
    "grad_cam": (0.2, 0.2),
    "gradient": (0.3, 0.4),
    "rise": (0.4, 0.5),
    "random_map": (0.5, 0.1),  # a control
}


def row(method: str, metric: str, mean: float | None, baseline: str | None = "mean") -> dict[str, Any]:
    n = 0 if mean is None else 5
    return {"method": method, "metric": metric, "mean": mean, "ci95": None, "n": n, "n_flat": 0, "n_failed": 0, "baseline": baseline}


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TABLES)


def two_baselines() -> pa.Table:
    return table_of(
        [
            row(method, metric, mean, baseline)
            for place, baseline in enumerate(("mean", "blur"))
            for method, means in MEANS.items()
            for metric, mean in (("deletion_auc", means[place]), ("proportion", 0.5))
        ]
    )


def slow_ranks(values: list[float]) -> list[float]:
    """Rank each value by the positions of its equals in the sorted list."""
    ordered = sorted(values)
    return [np.mean([place + 1 for place, other in enumerate(ordered) if other == value]) for value in values]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=9))
def test_spearman_is_the_correlation_of_the_ranks(pairs: list[tuple[int, int]]) -> None:
    one, other = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert spearman(one, other) is None
    else:
        assert spearman(one, other) == pytest.approx(np.corrcoef(slow_ranks(one), slow_ranks(other))[0, 1])


def test_spearman_of_two_values_is_not_given() -> None:
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None


def test_each_metric_has_its_means_by_method_and_baseline_and_the_ranks_of_the_methods_are_compared() -> None:
    (deletion,) = compare_baselines(two_baselines())  # the proportion is of the map alone
    assert (deletion.metric, deletion.baselines) == ("deletion_auc", ["mean", "blur"])
    assert {method: tuple(means) for method, means in deletion.means.items()} == MEANS
    assert list(deletion.means)[-1] == "random_map"
    (agreement,) = deletion.agreement
    # Ranks 1 2 3 4 and 2 1 3 4: rho = 1 - 6 (1 + 1) / (4 (16 - 1)); with the control it would be negative.
    assert (agreement.first, agreement.second, agreement.methods) == ("mean", "blur", 4)
    assert agreement.spearman == pytest.approx(0.8)
    assert deletion.sentences == ["mean and blur: 0.80 (4 methods)"]


def test_a_run_with_one_baseline_has_nothing_to_compare() -> None:
    assert compare_baselines(table_of([row("hdm", "deletion_auc", 0.1)])) == []


def test_every_other_table_shows_the_first_baseline() -> None:
    _, rows = layout_table(two_baselines())
    assert [cells[1] for cells in rows if cells[1]] == ["0.100 *", "0.200", "0.300", "0.400", "0.500"]
    curves = next(each for each in paper_tables(two_baselines(), "tiny") if each.title == "Table 2")
    assert [cells[0].mean for _, cells in curves.rows] == [0.1, 0.2, 0.5]


def test_a_metric_of_regions_without_any_is_left_out_by_name() -> None:
    table = table_of([row("hdm", "deletion_auc", 0.1), row("hdm", "proportion", None)])
    head, rows = layout_table(table)
    assert head == ["method", "deletion ↓", "n", "flat", "failed"]
    assert rows == [["HDM", "0.100 *", "5", "0", "0"]]
    assert remarks(table) == ["Left out, since no image has a map and an annotated region: proportion."]


def test_a_run_without_metrics_is_said_to_have_none() -> None:
    table = table_of([row("hdm", "deletion_auc", None, None), row("hdm", "proportion", None, None)])
    assert remarks(table) == ["Nothing was measured (metrics: none); hdm measure adds the numbers."]
    assert layout_table(table) == (["method", "n", "flat", "failed"], [["HDM", "0", "0", "0"]])
