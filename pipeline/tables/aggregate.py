"""Records become the paper's tables: every metric's mean over the images, with its 95% interval."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa

from hdm_core import METHODS, METRICS
from pipeline.runs import RunStore
from pipeline.runs.records import SCHEMA_VERSION, from_parquet, to_parquet, top_rank

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
    ],
    metadata={"hdm.schema_version": str(SCHEMA_VERSION)},
)

TITLES = {
    "average_drop_80": "drop 80%",
    "average_drop_70": "drop 70%",
    "increase_80": "increase 80%",
    "increase_70": "increase 70%",
    "deletion_auc": "deletion",
    "insertion_auc": "insertion",
    "proportion": "proportion",
}


def aggregate(store: RunStore) -> pa.Table:
    """Writes tables.parquet and completes images.parquet from the committed shards; returns the table.

    Of several classes an image only the likeliest counts.
    """
    records = top_rank(store.records()).select(["method", "status", *METRICS])
    table = pa.Table.from_pylist(list(_rows(records)), schema=TABLES)
    store.storage.write("tables.parquet", to_parquet(table, TABLES))
    store.write_image_facts()
    return table


def read_tables(store: RunStore) -> pa.Table:
    """tables.parquet.

    Raises:
        FileNotFoundError: if the run was not aggregated yet.
    """
    return from_parquet([store.storage.read("tables.parquet")], TABLES)


def best(table: pa.Table) -> set[tuple[str, str]]:
    """The (method, metric) pairs with the best mean of their metric; ties are all best."""
    rows = table.to_pylist()
    means = {(row["method"], row["metric"]): row["mean"] for row in rows if row["mean"] is not None and not math.isnan(row["mean"])}
    found = set()
    for metric, less_is_better in METRICS.items():
        values = {pair: mean for pair, mean in means.items() if pair[1] == metric}
        if values:
            top = (min if less_is_better else max)(values.values())
            found |= {pair for pair, mean in values.items() if mean == top}
    return found


def layout_table(table: pa.Table) -> tuple[list[str], list[list[str]]]:
    """The table as people read it: a head and a row a method, `mean ± ci95` with an asterisk at the best."""
    cells = {(row["method"], row["metric"]): row for row in table.to_pylist()}
    winners = best(table)
    head = ["method", *(f"{TITLES[metric]} {'↓' if less else '↑'}" for metric, less in METRICS.items()), "n", "flat", "failed"]
    rows = []
    for method in dict.fromkeys(method for method, _ in cells):
        texts = [_text(cells[method, metric], (method, metric) in winners) for metric in METRICS]
        any_cell = cells[method, next(iter(METRICS))]
        rows.append([METHODS[method].title, *texts, *(str(any_cell[name]) for name in ("n", "n_flat", "n_failed"))])
    return head, rows


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean of values and half the width of its normal 95% interval, which is NaN for a single value."""
    return fmean(values), 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _rows(records: pa.Table) -> Iterable[dict[str, Any]]:
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records.to_pylist():
        statuses[record["method"]][record["status"]] += 1
        for metric in METRICS:
            if record[metric] is not None:
                values[record["method"], metric].append(record[metric])
    for method in (method for method in METHODS if method in statuses):
        counts = statuses[method]
        for metric in METRICS:
            numbers = values[method, metric]
            several = len(numbers) > 1
            yield {
                "method": method,
                "metric": metric,
                "mean": fmean(numbers) if numbers else None,
                "std": stdev(numbers) if several else None,
                "ci95": interval(numbers)[1] if several else None,
                "n": len(numbers),
                "n_flat": counts["flat"],
                "n_failed": counts.total() - counts["ok"] - counts["flat"],
            }


def _text(cell: dict[str, Any], wins: bool) -> str:
    if cell["mean"] is None:
        return "-"
    spread = "" if cell["ci95"] is None else f" ± {cell['ci95']:.3f}"
    return f"{cell['mean']:.3f}{spread}{' *' if wins else ''}"
