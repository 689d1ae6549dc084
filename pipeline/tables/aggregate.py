"""tables.parquet: every metric's mean over the images, with its 95% interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METRICS, controls_last, is_control, method_title, metric_title
from hdm_core.metrics.registry import chosen_metrics
from pipeline.runs import RunStore
from pipeline.runs.measured import installed_metrics, measured_settings
from pipeline.runs.parts import MEASURES
from pipeline.runs.records import RECORDS, SCHEMA_VERSION, from_parquet, read_parquet, to_parquet, top_rank
from pipeline.tables.paired import write_statistics

TABLES = pa.schema(
    [
        ("method", pa.string()),
        ("metric", pa.string()),
        ("mean", pa.float64()),
        ("std", pa.float64()),  # of the sample, n - 1
        ("ci95", pa.float64()),  # half the width of the normal interval, 1.96 std / sqrt(n)
        ("n", pa.int64()),
        ("n_flat", pa.int64()),
        ("n_failed", pa.int64()),  # nan, unreadable and failed
        # Images whose class the baseline keeps, that of the method or that of the metrics; null where that is not known.
        ("n_no_contrast", pa.int64()),
        ("n_metrics_no_contrast", pa.int64()),
        ("baseline", pa.string()),  # of the metrics; null where nothing was measured
    ],
    metadata={"hdm.schema_version": str(SCHEMA_VERSION)},
)

_NO_CONTRAST = ("no_contrast", "metrics_no_contrast")

# Columns of the records that tables and statistics are made of, beside the metrics.
_COLUMNS = ("row", "method", "rank", "status", *_NO_CONTRAST, "metrics_baseline")

# Below every table with marks at its best values.
LEGEND = "* the best; ↓ less is better, ↑ more is better"

# First cell of the row between the methods and the controls.
CONTROLS_LINE = "── controls ──"

TITLES = {name: metric.title for name, metric in METRICS.items()}


def aggregate(store: RunStore) -> pa.Table:
    """Write and return tables.parquet; complete images.parquet.

    statistics.parquet is written as well. All are made from the committed shards.
    Of several classes per image only the most probable counts. Metrics and methods of the run that are not installed here are
    aggregated as well, after the others; metrics on request only where one of the maps has a value.
    """
    done = store.done()
    settings = measured_settings(store.storage, store.metadata())
    chosen = installed_metrics(settings)
    records = store.records(done, number_columns(store))
    uninstalled = _uninstalled_metrics(store, done)
    for name in uninstalled.column_names:
        records = records.append_column(name, uninstalled[name])
    records = top_rank(records)
    measured = [name for name in records.column_names if name in METRICS and records[name].null_count < len(records)]
    metrics = [name for name in METRICS if name in chosen or name in measured] + uninstalled.column_names
    baselines = [None] if settings is None else list(settings.baselines)
    # While a run is measured again, the shards that are left have the numbers of another baseline.
    of_first = pc.or_kleene(pc.is_null(records["metrics_baseline"]), pc.equal(records["metrics_baseline"], baselines[0] or ""))
    numbers = records if pc.all(of_first).as_py() is not False else records.filter(of_first)
    rows = list(_rows(records, numbers, metrics, baselines[0]))
    if len(baselines) > 1:
        measures = top_rank(pa.concat_tables([MEASURES.empty_table(), *store.measures(done)]))
        for baseline in baselines[1:]:
            rows += _rows(records, measures.filter(pc.equal(measures["baseline"], baseline)), metrics, baseline, first=False)
    table = pa.Table.from_pylist(rows, schema=TABLES)
    store.storage.write("tables.parquet", to_parquet(table, TABLES))
    write_statistics(store, numbers)
    store.write_image_facts()
    return table


def number_columns(store: RunStore) -> list[str]:
    """Return the columns of the records that tables and statistics are made of.

    Metrics on request are among them only if the run's settings or its files name them: a column of nulls takes memory, too.
    """
    chosen = installed_metrics(measured_settings(store.storage, store.metadata()))
    present = set(store.record_schema().names)
    metrics = [name for name, metric in METRICS.items() if not metric.on_request or name in chosen or name in present]
    return [*_COLUMNS, *(name for name in metrics if name in RECORDS.names)]


def read_tables(store: RunStore) -> pa.Table:
    """Read tables.parquet.

    Raises:
        FileNotFoundError: if the run was not aggregated yet.
    """
    return from_parquet([store.storage.read("tables.parquet")], TABLES)


def of_first_baseline(table: pa.Table) -> pa.Table:
    """Return the rows of the first baseline; those of a run with one baseline are all."""
    if "baseline" not in table.column_names or not table.num_rows or table["baseline"][0].as_py() is None:
        return table
    return table.filter(pc.equal(table["baseline"], table["baseline"][0]))


def is_unmeasured(table: pa.Table) -> bool:
    """Return True for a table of a run whose maps were not measured."""
    rows = table.to_pylist()
    return bool(rows) and all("baseline" in row and row["baseline"] is None and not row["n"] for row in rows)


def metrics_of(table: pa.Table) -> list[str]:
    """Return a table's metrics in the registry's order.

    Those that are not installed here come last. An empty table has those that are measured by default. Metrics of a region are left out
    where others have numbers and they have none, and all where nothing was measured.
    """
    if is_unmeasured(table):
        return []
    missing = set(_without_region(table))
    return [name for name in METRICS.sort(table["metric"].to_pylist()) if name not in missing] or chosen_metrics(None)


def remarks(table: pa.Table) -> list[str]:
    """Return the sentences about metrics that a table does not show."""
    if is_unmeasured(table):
        return ["Nothing was measured (metrics: none); hdm measure adds the numbers."]
    missing = [METRICS[name].title for name in _without_region(table)]
    return [f"Left out, since no image has a map and an annotated region: {', '.join(missing)}."] if missing else []


def _without_region(table: pa.Table) -> list[str]:
    """Return the metrics of a region that alone have no number."""
    counts: Counter[str] = Counter()
    for metric, count in zip(table["metric"].to_pylist(), table["n"].to_pylist(), strict=True):
        counts[metric] += count
    return [
        name
        for name in METRICS.sort(counts)
        if name in METRICS and METRICS[name].needs_region and not counts[name] and any(counts.values())
    ]


def best(table: pa.Table) -> set[tuple[str, str]]:
    """Return the (method, metric) pairs with the best mean of their metric.

    Ties are all best.
    A mean of fewer than two images is not: it has no interval.
    A metric that is not installed here has no best: its direction is unknown.
    """
    rows = [row for row in table.to_pylist() if row["mean"] is not None and row["n"] > 1]
    means = {(row["method"], row["metric"]): row["mean"] for row in rows if not math.isnan(row["mean"])}
    winners = set()
    for name, metric in METRICS.items():
        values = {pair: mean for pair, mean in means.items() if pair[1] == name}
        if values:
            top = (min if metric.lower_is_better else max)(values.values())
            winners |= {pair for pair, mean in values.items() if mean == top}
    return winners


def layout_table(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    """Format the table for people, with a head and one row per method.

    Cells are `mean ± ci95`, with an asterisk at the best. The controls are below a row that names them.
    """
    table = of_first_baseline(table)
    cells = {(row["method"], row["metric"]): row for row in table.to_pylist()}
    winners, metrics = best(table), metrics_of(table)
    counts = {method: row for (method, _), row in reversed(cells.items())}
    heads = [f"{METRICS[name].title} {METRICS[name].arrow}" if name in METRICS else metric_title(name) for name in metrics]
    rows: list[list[str]] = []
    methods = sorted(dict.fromkeys(method for method, _ in cells), key=is_control)
    for method in methods:
        if is_control(method) and rows and not any(is_control(each) for each in methods[: len(rows)]):
            rows.append([CONTROLS_LINE, *("" for _ in (*metrics, "n", "flat", "failed"))])
        texts = [_text(cells[method, metric], (method, metric) in winners) for metric in metrics]
        any_cell = cells[method, metrics[0]] if metrics else counts[method]
        rows.append([method_title(method), *texts, *(str(any_cell[name]) for name in ("n", "n_flat", "n_failed"))])
    return ["method", *heads, "n", "flat", "failed"], rows


def interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of values and half the width of its normal 95% interval.

    The width is NaN for a single value.
    """
    mean, deviation = mean_and_deviation(values)
    return mean, 1.96 * deviation / math.sqrt(len(values))


def mean_and_deviation(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of values and the standard deviation of the sample, n - 1.

    Sums are exact before they are rounded, so that the order of the values does not matter. The deviation is NaN for a single value.
    """
    numbers = np.asarray(values, np.float64)
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.sqrt(math.fsum((numbers - mean) ** 2) / (len(numbers) - 1)) if len(numbers) > 1 else math.nan


def _uninstalled_metrics(store: RunStore, shards: Iterable[int]) -> pa.Table:
    """Read the metrics of the records that are not installed here.

    Rows are in the order of the records.
    """
    uninstalled = store.uninstalled_metrics()
    if not uninstalled.names:
        return uninstalled.empty_table()
    parts = [read_parquet(store.storage.read(f"records/part-{shard:06d}.parquet")) for shard in sorted(shards)]
    return pa.concat_tables([uninstalled.empty_table(), *parts], promote_options="default").select(uninstalled.names)


def _rows(
    records: pa.Table, numbers: pa.Table, metrics: Sequence[str], baseline: str | None, first: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield the rows of tables.parquet of one baseline: every metric of every method.

    Methods are in the registry's order, the controls last.

    Args:
        records: with the statuses of all maps.
        numbers: with a column `method`, and the metrics' values on the baseline.
        first: False for a further baseline, of which it is not known whether it keeps the classes.
    """
    for method in controls_last(pc.unique(records["method"]).to_pylist()):
        of_method = records.filter(pc.equal(records["method"], method))
        statuses = {each["values"]: each["counts"] for each in pc.value_counts(of_method["status"]).to_pylist()}
        kept = {name: pc.sum(of_method[name]).as_py() for name in _NO_CONTRAST}
        measured = numbers.filter(pc.equal(numbers["method"], method))
        for metric in metrics:
            values = measured[metric].drop_null().to_numpy() if metric in measured.column_names else np.empty(0)
            several = len(values) > 1
            mean, deviation = mean_and_deviation(values) if len(values) else (None, None)
            yield {
                "method": method,
                "metric": metric,
                "mean": mean,
                "std": deviation if several else None,
                "ci95": interval(values)[1] if several else None,
                "n": len(values),
                "n_flat": statuses.get("flat", 0),
                "n_failed": sum(count for status, count in statuses.items() if status not in ("ok", "skipped", "flat")),
                "n_no_contrast": kept["no_contrast"],
                "n_metrics_no_contrast": kept["metrics_no_contrast"] if first else None,
                "baseline": baseline,
            }


def _text(cell: dict[str, Any], wins: bool) -> str:
    if cell["mean"] is None:
        return "-"
    spread = "" if cell["ci95"] is None else f" ± {cell['ci95']:.3f}"
    return f"{cell['mean']:.3f}{spread}{' *' if wins else ''}"
