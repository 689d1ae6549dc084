"""Columns of the metrics on request: only those that a run measures are written."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from hdm_core.metrics.registry import metrics_on_request


def written_columns(schema: pa.Schema, named: Iterable[str]) -> pa.Schema:
    """Return a schema without the metrics on request that are not named.

    Args:
        named: the metrics of the run's settings.
    """
    absent = set(metrics_on_request()).difference(named)
    return pa.schema([column for column in schema if column.name not in absent], metadata=schema.metadata)


def never_measured(table: pa.Table, ending: str = "") -> set[str]:
    """Return the columns of metrics on request in which every value is null.

    Args:
        ending: what follows the metric's id in a column's name.
    """
    columns = (f"{name}{ending}" for name in metrics_on_request())
    return {name for name in columns if table[name].null_count == len(table)}
