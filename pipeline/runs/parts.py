"""Parts of a shard in the folders records, curves and measures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import itemgetter

import pyarrow as pa

from hdm_core import METRICS, MetricSettings
from hdm_core.metrics.registry import chosen_metrics
from pipeline.runs.records import CURVES, FILE_METADATA, RECORDS, Record, to_parquet
from pipeline.runs.requested import written_columns

# Metrics of a run with several baselines: one row per image, method, rank and baseline, the first baseline's too.
MEASURES = pa.schema(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("method", pa.string()),
        ("rank", pa.int32()),
        ("baseline", pa.string()),
        *[(metric, pa.float32()) for metric in METRICS],
    ],
    metadata=FILE_METADATA,
)


def encode_records(
    records: Iterable[Record], settings: MetricSettings | None = None, metadata: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """Encode a shard's parts of the folders `records`, `curves` and `measures`.

    Maps that were not measured have no curves; `measures` is only of runs with several baselines.

    Args:
        settings: of the run's metrics: of those on request only the named ones have a column.
        metadata: added to that of the file of records.
    """
    rows, measures = [], []
    for record in records:
        rows.append(record.to_row())
        key = {name: getattr(record, name) for name in ("row", "image_id", "method", "rank")}
        measures += [key | {"baseline": baseline} | dict(values) for baseline, values in record.measures.items()]
    measured = [row for row in rows if row["deletion"] is not None]
    named = () if settings is None else chosen_metrics(settings.names)
    schema = written_columns(RECORDS, named).with_metadata({**FILE_METADATA, **(metadata or {})})
    parts = {"records": to_parquet(rows, schema), "curves": to_parquet(measured, CURVES)}
    if settings is not None and len(settings.baselines) > 1:
        parts["measures"] = to_parquet(measures, written_columns(MEASURES, named))
    return parts


def join_records(records: pa.Table, curves: pa.Table, measures: pa.Table) -> list[Record]:
    """Return rows of RECORDS as records, with their curves and measures."""
    key = itemgetter("row", "method", "rank")
    curves_of = {key(row): row for row in curves.to_pylist()}
    measures_of: dict[tuple[int, str, int], dict[str, dict[str, float | None]]] = defaultdict(dict)
    for row in measures.to_pylist():
        measures_of[key(row)][row["baseline"]] = {metric: row[metric] for metric in METRICS}
    return [
        replace(Record.from_row(row | curves_of.get(key(row), {})), measures=dict(measures_of.get(key(row), {})))
        for row in records.to_pylist()
    ]
