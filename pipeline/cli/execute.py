"""What `hdm run`, `hdm reexplain` and `hdm repair` share: a plan is run to its end, and what came of it is printed."""

from __future__ import annotations

import logging
from typing import Any

import typer
from rich.table import Table

from pipeline.cli.console import err, out, print_facts, print_json

DONE, FAILED, BAD_INPUT, UNEXPLAINED = 0, 1, 2, 3

_log = logging.getLogger("pipeline")


def drive(plan: Any, store: Any, as_json: bool) -> None:
    """Runs what is planned, aggregates, and prints what came of it; ends the command with 3 if images could not be explained."""
    from pipeline.execution.driver import explain_run
    from pipeline.monitoring.progress import clock, progress_bar
    from pipeline.report import write_report
    from pipeline.tables.aggregate import read_tables

    _log.info(
        "%s: %d images in %d shards, at most %d passes; %s", plan.config.name, len(plan.samples), len(plan.shards), plan.passes, store.url
    )
    with progress_bar(err) as show:
        outcome = explain_run(plan, store, show)
    page = write_report(store)
    table = read_tables(store)
    for item in outcome.failed_shards:
        err.print(f"shard {item.shard.index} (rows {item.shard.start}-{item.shard.stop - 1}) was set aside: {item.error}", markup=False)
    if as_json:
        print_json(
            {
                "run": store.url,
                "report": page,
                "images": outcome.images,
                "shards": outcome.shards,
                "resumed": outcome.already_done,
                "passes": outcome.passes,
                "seconds": round(outcome.seconds, 3),
                "statuses": outcome.statuses,
                "set_aside": [item.shard.index for item in outcome.failed_shards],
                "tables": table.to_pylist(),
            }
        )
    else:
        print_tables(table)
        print_facts(
            {"images": outcome.images, "passes": f"{outcome.passes:,} in {clock(outcome.seconds)}", "run": store.url, "report": page}
        )
    if outcome.failed_images:
        err.print(f"{outcome.failed_images} images could not be explained: see the records' status and error", markup=False)
        raise typer.Exit(UNEXPLAINED)


def train_first(config: Any) -> None:
    """Trains a run's classifier where it is not there yet, with its progress on the console."""
    from pipeline.training.prerequisite import training_before
    from pipeline.training.progress import on_console
    from pipeline.training.run import train

    if (training := training_before(config)) is not None:
        _log.info("%s is not trained yet: %s comes first", config.classifier.path, config.classifier.train)
        with on_console(err) as show:
            train(training, show)


def print_tables(table: Any) -> None:
    """A run's metrics, a row a method."""
    from pipeline.tables.aggregate import layout_table

    head, rows = layout_table(table)
    shown = Table(*head, box=None)
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
    out.print("mean ± half of the 95% interval; * the best; ↓ less is better, ↑ more is better", markup=False)
