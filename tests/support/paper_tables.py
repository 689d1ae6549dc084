"""Tables of metrics with given means, for the tests of the paper's tables."""

from __future__ import annotations

import pyarrow as pa

from hdm_core.metrics.registry import chosen_metrics
from pipeline.tables.aggregate import TABLES

HOSTILE = "=x|&_%$#{}~^\\<b>*`[a](b)\n| new | row |\x1b[31m"


def table_of(means: dict[str, dict[str, float | None]], spread: float | None = 0.0125, n: int = 6) -> pa.Table:
    """tables.parquet of methods whose metrics have these means; a metric that is not given has none."""
    rows = [
        {
            "method": method,
            "metric": metric,
            "mean": mean,
            "std": None,
            "ci95": None if mean is None else spread,
            "n": 0 if mean is None else n,
        }
        | {"n_flat": int(method == "dm"), "n_failed": 0}
        for method, given in means.items()
        for metric, mean in ((metric, given.get(metric)) for metric in chosen_metrics(None))
    ]
    return pa.Table.from_pylist(rows, schema=TABLES)


def every(value: float | None) -> dict[str, float | None]:
    return dict.fromkeys(chosen_metrics(None), value)


TINY = table_of({"hdm": {"proportion": 0.5797, "deletion_auc": 0.25}, "dm": {"deletion_auc": 0.5}, "grad_cam": every(0.125)})
