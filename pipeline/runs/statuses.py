"""Statuses and errors of a run's records, counted by image."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.runs.records import STATUSES


def worst_statuses(records: pa.Table) -> dict[str, int]:
    """Count images by status, each under the worst status of its methods."""
    severities = pa.table({"row": records["row"], "severity": pc.index_in(records["status"], pa.array(STATUSES))})
    worst = severities.group_by("row").aggregate([("severity", "max")])["severity_max"]
    return {STATUSES[severity]: count for severity, count in Counter(worst.to_pylist()).items()}


def count_errors(records: pa.Table) -> Counter[tuple[str, str]]:
    """Count images by status and error, where there is an error.

    Args:
        records: with the columns row, status and error.
    """
    with_error = records.filter(pc.is_valid(records["error"]))
    groups = with_error.group_by(["status", "error"]).aggregate([("row", "count_distinct")])
    return Counter({(group["status"], group["error"]): group["row_count_distinct"] for group in groups.to_pylist()})


def error_text(errors: Counter[tuple[str, str]], status: str) -> str:
    """Return the most frequent error of a status in parentheses.

    It is empty if there is none.

    Args:
        errors: (status, error) -> images.
    """
    of_status = [(-count, error) for (each, error), count in errors.items() if each == status]
    if not of_status:
        return ""
    count, error = min(of_status)
    images = "1 image" if count == -1 else f"{-count:,} images"
    more = len(of_status) - 1
    others = "" if not more else ", and 1 more error" if more == 1 else f", and {more:,} more errors"
    return f" ({error}: {images}{others})"
