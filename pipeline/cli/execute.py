"""Execution of a run by `hdm run`, `hdm reexplain` and `hdm repair`."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from pipeline.cli.console import err, out, print_facts, print_json

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.execution.driver import RunSummary
    from pipeline.monitoring.progress import ProgressCallback
    from pipeline.plan import Plan
    from pipeline.runs import RunStore
    from pipeline.workflow import Steps

MOST_ERRORS = 20  # different errors in JSON; the records have all
DONE, FAILED, BAD_INPUT, UNEXPLAINED = 0, 1, 2, 3

_log = logging.getLogger("pipeline")


def console_steps(on_progress: ProgressCallback) -> Steps:
    """Return the default steps of a run, with a line before the shards are executed."""
    from dataclasses import replace

    from pipeline.workflow import default_steps

    steps = default_steps(on_progress)

    def execute(plan: Plan, store: RunStore) -> RunSummary:
        images, shards = len(plan.samples), len(plan.shards)
        _log.info("%s: %d images in %d shards, at most %d passes; %s", plan.config.name, images, shards, plan.passes, store.url)
        return steps.execute(plan, store)

    return replace(steps, execute=execute)


def print_summary(summary: RunSummary, as_json: bool) -> None:
    """Print a run's result; exits with 3 if images could not be explained."""
    from pipeline.monitoring.progress import clock
    from pipeline.tables.aggregate import read_tables

    table = read_tables(summary.store)
    for failed in summary.failed_shards:
        rows = f"rows {failed.shard.start}-{failed.shard.stop - 1}"
        err.print(f"shard {failed.shard.index} ({rows}) failed after all attempts: {failed.error}", markup=False)
    if as_json:
        print_json(
            {
                "run": summary.url,
                "report": summary.report,
                "images": summary.images,
                "shards": summary.shards,
                "resumed": summary.already_done,
                "passes": summary.passes,
                "seconds": round(summary.seconds, 3),
                "statuses": summary.statuses,
                "errors": errors_json(summary.errors),
                "set_aside": [failed.shard.index for failed in summary.failed_shards],
                "tables": table.to_pylist(),
            }
        )
    else:
        print_tables(table)
        passes = f"{summary.passes:,} in {clock(summary.seconds)}"
        statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(summary.statuses.items()))
        images = f"{summary.images:,}: {statuses or 'none explained'}"
        print_facts({"images": images, "passes": passes, "run": summary.url, "report": summary.report})
    if summary.failed_images:
        err.print(summary.failure_text(), markup=False)
        raise typer.Exit(UNEXPLAINED)


def errors_json(errors: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the most frequent errors of a run's records, one object each."""
    return [{"status": status, "error": error, "images": images} for (status, error), images in errors.most_common(MOST_ERRORS)]


def print_tables(table: pa.Table) -> None:
    """Print a run's metrics, one row per method."""
    from pipeline.tables.aggregate import LEGEND, is_unmeasured, layout_table, remarks

    head, rows = layout_table(table)
    grid = Table(*head, box=None)
    for row in rows:
        grid.add_row(*row)
    out.print(grid)
    if not is_unmeasured(table):
        out.print(f"mean ± half of the 95% interval; {LEGEND}", markup=False)
    for remark in remarks(table):
        out.print(remark, markup=False)
