"""Commands `hdm verify` and `hdm repair`."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pipeline.cli.console import err, print_facts, print_json
from pipeline.cli.execute import FAILED, console_steps, print_summary
from pipeline.cli.options import Json, Run, configuration

if TYPE_CHECKING:
    from pipeline.plan import Plan
    from pipeline.runs import RunStore

_log = logging.getLogger("pipeline")


def verify(run: Run, as_json: Json = False) -> None:
    """Compare all of a run with its checksums.

    The damaged shards are listed; `hdm repair` computes them again.
    """
    from pipeline.monitoring.progress import progress_bar
    from pipeline.runs import RunStore
    from pipeline.runs.verify import verify as verify_run

    store = RunStore.open(run)
    with progress_bar(err) as on_progress:
        report = verify_run(store, on_progress)
    if as_json:
        print_json({"run": store.url, **asdict(report)})
    else:
        print_facts({"run": store.url, "shards": report.shards, "objects": report.objects, "damaged shards": len(report.damaged)})
        for index, problems in report.damaged.items():
            err.print(f"shard {index}: {'; '.join(problems)}", markup=False)
    if report.damaged:
        if not as_json:
            err.print(f"hdm repair {run} computes them again", markup=False)
        raise typer.Exit(FAILED)


def repair(run: Run, as_json: Json = False) -> None:
    """Compute a run's damaged and missing shards again."""
    from pipeline.monitoring.progress import progress_bar
    from pipeline.runs import RunStore
    from pipeline.runs.verify import revoke_commits
    from pipeline.runs.verify import verify as verify_run
    from pipeline.workflow import finish_steps

    store = RunStore.open(run)
    with progress_bar(err) as on_progress:
        report = verify_run(store, on_progress)
        plan, store = _plan_again(store)
        revoke_commits(store, report)
        _log.info("%d of %d committed shards are damaged", len(report.damaged), report.shards)
        summary = finish_steps(plan, store, console_steps(on_progress))
    print_summary(summary, as_json)


def _plan_again(store: RunStore) -> tuple[Plan, RunStore]:
    """Plan a stored run from its own configuration, wherever its folder is now."""
    from pipeline.execution.driver import plan_run

    output, _, name = store.url.rpartition("/")
    config = {**store.metadata()["config"], "output": output, "name": name}
    return plan_run(configuration(config, None, None, None, None))
