"""The aggregate against numbers done by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hdm_core import METHODS, METRICS, Metric, MetricSettings
from hdm_core.metrics.registry import chosen_metrics
from pipeline.plan import Plan
from pipeline.report.summary import head
from pipeline.runs import RunStore
from pipeline.tables import paper_tables
from pipeline.tables.aggregate import TABLES, TITLES, aggregate, best, interval, layout_table, read_tables
from tests.support.plans import record, results, write_all

Cells = dict[tuple[str, str], dict[str, Any]]


def tabulate(store: RunStore, plan: Plan, changes: dict[tuple[int, str], dict[str, Any]]) -> Cells:
    """Commit the whole run, its records changed by (row, method), and return the table's rows."""
    store.create(plan)
    for shard in plan.shards:
        arrays, _, facts = results(plan, shard)
        rows = range(shard.start, shard.stop)
        records = [record(plan, shard, row, method, **changes.get((row, method), {})) for row in rows for method in plan.config.methods]
        store.write_shard(shard, arrays, records, facts, plan.config)
    return {(cell["method"], cell["metric"]): cell for cell in aggregate(store).to_pylist()}


def table_of(means: dict[tuple[str, str], float | None]) -> pa.Table:
    rows = [
        {"method": method, "metric": metric, "mean": mean, "std": None, "ci95": None, "n": 2, "n_flat": 0, "n_failed": 0}
        for (method, metric), mean in means.items()
    ]
    return pa.Table.from_pylist(rows, schema=TABLES)


# The numbers


def test_mean_deviation_and_interval_by_hand(plan: Plan, store: RunStore) -> None:
    values = {(row, "hdm"): {"deletion_auc": value} for row, value in enumerate((0.125, 0.25, 0.75))}
    cell = tabulate(store, plan, values)["hdm", "deletion_auc"]
    # mean 3/8; squares of the deviations 1/16 + 1/64 + 9/64 = 7/32, over n - 1 = 2
    assert cell["mean"] == pytest.approx(0.375, rel=1e-12)
    assert cell["std"] == pytest.approx(math.sqrt(7 / 64), rel=1e-12)
    assert cell["ci95"] == pytest.approx(1.96 * math.sqrt(7 / 64) / math.sqrt(3), rel=1e-12)
    assert cell["n"] == 3


def test_every_metric_of_every_method_has_a_row_in_order(plan: Plan, store: RunStore) -> None:
    cells = tabulate(store, plan, {})
    assert list(cells) == [(method, metric) for method in ("hdm", "grad_cam") for metric in chosen_metrics(None)]
    assert set(TITLES) == set(METRICS)


def test_one_value_has_a_mean_and_no_spread(plan: Plan, store: RunStore) -> None:
    cell = tabulate(store, plan, {(0, "hdm"): {"proportion": 0.5}})["hdm", "proportion"]
    assert (cell["mean"], cell["std"], cell["ci95"], cell["n"]) == (0.5, None, None, 1)


def test_what_has_no_metric_is_counted_and_not_averaged(plan: Plan, store: RunStore) -> None:
    changes = {
        (0, "hdm"): {"insertion_auc": 0.25},
        (1, "hdm"): {"status": "flat"},
        (2, "hdm"): {"status": "nan"},
        (3, "hdm"): {"status": "unreadable"},
        (4, "hdm"): {"status": "failed"},
        (3, "grad_cam"): {"status": "unreadable"},
        **{(row, "grad_cam"): {"insertion_auc": 0.5} for row in (0, 1, 2, 4)},
    }
    cells = tabulate(store, plan, changes)
    hdm, cam = cells["hdm", "insertion_auc"], cells["grad_cam", "insertion_auc"]
    assert (hdm["mean"], hdm["n"], hdm["n_flat"], hdm["n_failed"]) == (0.25, 1, 1, 3)
    assert (cam["mean"], cam["std"], cam["n"], cam["n_flat"], cam["n_failed"]) == (0.5, 0.0, 4, 0, 1)
    assert {(cells["hdm", metric]["n_flat"], cells["hdm", metric]["n_failed"]) for metric in chosen_metrics(None)} == {(1, 3)}


def test_a_metric_that_applies_to_few_images_says_how_many(plan: Plan, store: RunStore) -> None:
    changes = {(row, "hdm"): {"deletion_auc": 0.5, "proportion": 0.25 if row < 2 else None} for row in range(5)}
    cells = tabulate(store, plan, changes)
    assert (cells["hdm", "deletion_auc"]["n"], cells["hdm", "proportion"]["n"]) == (5, 2)


def test_a_method_without_any_good_image_is_in_the_table(plan: Plan, store: RunStore) -> None:
    changes = {(row, "grad_cam"): {"status": "flat"} for row in range(5)}
    cells = tabulate(store, plan, changes)
    for metric in chosen_metrics(None):
        cell = cells["grad_cam", metric]
        assert (cell["mean"], cell["std"], cell["ci95"]) == (None, None, None)
        assert (cell["n"], cell["n_flat"], cell["n_failed"]) == (0, 5, 0)
    _, rows = layout_table(read_tables(store))
    assert rows[1] == ["Grad-CAM", *["-"] * len(chosen_metrics(None)), "0", "5", "0"]


def test_it_is_written_and_read_back(plan: Plan, store: RunStore) -> None:
    with pytest.raises(FileNotFoundError):
        read_tables(store)
    cells = tabulate(store, plan, {(0, "hdm"): {"deletion_auc": 0.5}})
    assert {(cell["method"], cell["metric"]): cell for cell in read_tables(store).to_pylist()} == cells
    assert store.images()["width"].to_pylist() == [24] * 5


def test_a_run_without_commits_has_an_empty_table(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    assert aggregate(store).num_rows == 0
    assert layout_table(read_tables(store))[1] == []
    assert store.images().num_rows == 5


def test_a_metric_on_request_is_in_the_table_where_it_was_measured(plan: Plan, store: RunStore) -> None:
    named = replace(plan, config=plan.config.model_copy(update={"metrics": MetricSettings(names=("paper", "srg", "sparseness"))}))
    cells = tabulate(store, named, {(row, "hdm"): {"srg": value} for row, value in enumerate((0.25, 0.75))})
    assert list(dict.fromkeys(metric for _, metric in cells)) == [*chosen_metrics(None), "srg", "sparseness"]
    assert (cells["hdm", "srg"]["mean"], cells["hdm", "srg"]["n"]) == (0.5, 2)
    assert (cells["grad_cam", "srg"]["mean"], cells["grad_cam", "srg"]["n"]) == (None, 0)


# The best


@pytest.mark.parametrize("metric", METRICS)
def test_the_best_is_the_least_or_the_most_as_the_metric_has_it(metric: str) -> None:
    table = table_of({("hdm", metric): 0.25, ("dm", metric): 0.5, ("grad_cam", metric): 0.75})
    less = metric in {"average_drop_80", "average_drop_70", "deletion_auc"} | {
        *("average_drop_soft", "infidelity", "complexity", "border_share", "background_share")
    }
    assert best(table) == {("hdm" if less else "grad_cam", metric)}


def test_ties_are_all_best() -> None:
    table = table_of({("hdm", "deletion_auc"): 0.25, ("dm", "deletion_auc"): 0.5, ("grad_cam", "deletion_auc"): 0.25})
    assert best(table) == {("hdm", "deletion_auc"), ("grad_cam", "deletion_auc")}


def test_what_has_no_mean_is_never_best() -> None:
    assert best(table_of({("hdm", "proportion"): None, ("dm", "proportion"): 0.0})) == {("dm", "proportion")}
    assert best(table_of({("hdm", "proportion"): None})) == set()


# The layout


def test_the_table_as_people_read_it(plan: Plan, store: RunStore) -> None:
    changes = {
        **{(row, "hdm"): {"deletion_auc": value, "proportion": 0.5} for row, value in enumerate((0.125, 0.25, 0.75))},
        **{(row, "grad_cam"): {"deletion_auc": 0.5} for row in range(5)},
        (4, "hdm"): {"status": "failed"},
    }
    tabulate(store, plan, changes)
    head, rows = layout_table(read_tables(store))
    assert head[0] == "method"
    assert "deletion ↓" in head
    assert "insertion ↑" in head
    assert head[-3:] == ["n", "flat", "failed"]
    assert [row[0] for row in rows] == [METHODS["hdm"].title, METHODS["grad_cam"].title]
    assert all(len(row) == len(head) for row in rows)
    hdm, cam = (dict(zip(head, row, strict=True)) for row in rows)
    assert hdm["deletion ↓"] == "0.375 ± 0.374 *"
    assert cam["deletion ↓"] == "0.500 ± 0.000"
    assert hdm["proportion ↑"] == "0.500 ± 0.000 *"
    assert cam["proportion ↑"] == "-"
    assert hdm["failed"] == "1"


def test_the_mean_and_its_interval() -> None:
    assert interval([0.0, 1.0]) == (0.5, pytest.approx(1.96 / 2))
    mean, half = interval([3.0])
    assert mean == 3.0
    assert math.isnan(half), "one value says nothing of its spread"


# Other registries than this one's


def test_a_metric_that_is_registered_is_in_the_table_and_on_the_page(plan: Plan, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Metric("brightness", "light", "mean of the map", lower_is_better=True, compute=lambda measured: measured.maps.mean((1, 2)))
    monkeypatch.setitem(METRICS, "brightness", entry)
    cells = tabulate(store, plan, {(0, "hdm"): {"deletion_auc": 0.5}})
    assert [metric for method, metric in cells if method == "hdm"] == chosen_metrics(None)
    assert cells["hdm", "brightness"]["mean"] is None, "the records were made without it"
    table = table_of({("hdm", "brightness"): 0.25, ("dm", "brightness"): 0.5})
    columns, rows = layout_table(table)
    assert columns == ["method", "light ↓", "n", "flat", "failed"]
    assert [row[1] for row in rows] == ["0.250 *", "0.500"]
    (column,) = head(table)
    assert column == {"title": "light", "arrow": "↓", "better": "less", "definition": "mean of the map"}


def test_methods_and_metrics_that_are_not_installed_are_listed_by_their_id(plan: Plan, store: RunStore) -> None:
    table = table_of({("lime", "aopc"): 0.25, ("hdm", "aopc"): 0.5, ("lime", "deletion_auc"): 0.5, ("hdm", "deletion_auc"): 0.5})
    columns, rows = layout_table(table)
    assert columns == ["method", "deletion ↓", "aopc", "n", "flat", "failed"]
    assert [row[:3] for row in rows] == [["lime", "0.500 *", "0.250"], ["HDM", "0.500 *", "0.500"]]


def test_records_of_a_method_that_is_not_installed_are_averaged(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    for shard in plan.shards:
        arrays, _, facts = results(plan, shard)
        values = {"lime": 0.25, "grad_cam": 0.5}
        rows = range(shard.start, shard.stop)
        records = [record(plan, shard, row, method, deletion_auc=value) for row in rows for method, value in values.items()]
        store.write_shard(shard, arrays, records, facts, plan.config)
    cells = {(cell["method"], cell["metric"]): cell for cell in aggregate(store).to_pylist()}
    assert [method for method, metric in cells if metric == "deletion_auc"] == ["grad_cam", "lime"], "what is installed comes first"
    assert (cells["lime", "deletion_auc"]["mean"], cells["lime", "deletion_auc"]["n"]) == (0.25, 5)
    columns, rows = layout_table(read_tables(store))
    assert [row[0] for row in rows] == ["Grad-CAM", "lime"]
    assert rows[1][columns.index("deletion ↓")] == "0.250 ± 0.000 *"
    assert [title for title, _ in paper_tables(read_tables(store), "birds")[0].rows] == ["Grad-CAM", "lime"]


def test_records_of_a_metric_that_is_not_installed_are_averaged(plan: Plan, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create(plan)
    write_all(store, plan)
    path = Path(store.url.removeprefix("file://")) / "records/part-000000.parquet"
    part = pq.read_table(path)
    pq.write_table(part.append_column("aopc", pa.array([0.5] * len(part), pa.float32())), path)
    cells = {(row["method"], row["metric"]): row for row in aggregate(store).to_pylist()}
    assert (cells["hdm", "aopc"]["mean"], cells["hdm", "aopc"]["n"]) == (0.5, 2), "the other parts were made without it"
    assert layout_table(read_tables(store))[0][-4:] == ["aopc", "n", "flat", "failed"]
