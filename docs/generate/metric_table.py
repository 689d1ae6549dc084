"""Table of all registered metrics, generated from METRICS."""

from __future__ import annotations

from md_table import cell, code, table

from hdm_core import METRICS


def metric_table() -> str:
    """Build the table: one row per metric."""
    rows = [
        [
            code(metric.id),
            cell(metric.title),
            "lower" if metric.lower_is_better else "higher",
            "yes" if metric.needs_region else "no",
            "on request" if metric.on_request else "default",
            cell(metric.definition),
        ]
        for metric in METRICS.values()
    ]
    return table(["id", "title", "better", "needs a region", "measured", "definition"], rows)
