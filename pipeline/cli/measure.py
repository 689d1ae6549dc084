"""Command `hdm measure`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from pipeline.cli.console import err
from pipeline.cli.execute import console_steps, print_summary
from pipeline.cli.options import Json, Run, Set, given_changes


def measure(
    run: Run,
    set_: Set = None,
    replace: Annotated[bool, typer.Option("--replace", help="replace the numbers of other settings")] = False,
    as_json: Json = False,
) -> None:
    """Measure the maps of a finished run; the same command again resumes it.

    Maps are not computed again. --set takes keys below metrics, such as metrics.names=[paper] or metrics.baselines=[mean,blur], and the
    resources below compute. Metrics of the same baselines and protocol are added to those that the run has.
    """
    from pipeline.execution.measure import measure_run, plan_measure
    from pipeline.monitoring.progress import progress_bar

    planned = plan_measure(run, given_changes({}, set_), replace_numbers=replace)
    with progress_bar(err) as on_progress:
        summary = measure_run(planned, on_progress)
        summary.report = console_steps(on_progress).report(summary.store)
    if planned.todo:
        print_summary(summary, as_json)
        return
    err.print(f"{planned.store.url} is measured with these settings already", markup=False, soft_wrap=True)
    if as_json:
        with suppress(typer.Exit):  # images that could not be explained are no news
            print_summary(summary, as_json)
