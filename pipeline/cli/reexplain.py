"""Command `hdm reexplain`."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.console import err, out, print_facts, print_json
from pipeline.cli.execute import console_steps, print_summary
from pipeline.cli.options import Config, Json, Limit, Output, Root, Set, configuration

if TYPE_CHECKING:
    from pipeline.config.schema import RunConfig
    from pipeline.plan import Plan
    from pipeline.reexplain.plan import ReexplainPlan
    from pipeline.runs import RunStore

Since = Annotated[
    str | None, typer.Option(metavar="RUN", help="the run to reuse results from, instead of the newest of this configuration")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only print what would be done for each image, and why")]

_log = logging.getLogger("pipeline")


def reexplain(
    config: Config,
    since: Since = None,
    output: Output = None,
    root: Root = None,
    limit: Limit = None,
    set_: Set = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Explain a dataset again, as far as it changed.

    Results of earlier runs are reused for images, classifiers and settings that are the same.
    """
    from dataclasses import replace

    from pipeline.monitoring.progress import progress_bar
    from pipeline.reexplain.plan import create_run, plan_reexplain
    from pipeline.workflow import run_steps

    run_config = configuration(config, output, root, limit, set_)
    planned: ReexplainPlan | None = None
    with progress_bar(err) as on_progress:

        def plan_changes(run_config: RunConfig) -> tuple[Plan, RunStore] | None:
            nonlocal planned
            planned = plan_reexplain(run_config, since, on_progress)
            if dry_run or planned.unchanged:
                return None
            _log.info("%s", planned.line())
            return create_run(planned)

        if dry_run:  # trains nothing and writes nothing
            summary, _ = None, plan_changes(run_config)
        else:
            summary = run_steps(run_config, replace(console_steps(on_progress), plan=plan_changes))
    if summary is not None:
        print_summary(summary, as_json)
    elif planned is not None:
        (_print_plan if dry_run else _print_unchanged)(planned, as_json)


def _print_plan(planned: ReexplainPlan, as_json: bool) -> None:
    facts = {"run": planned.plan.config.name, "before": planned.before and planned.before.url, "unfinished": planned.unfinished}
    if as_json:
        print_json({**facts, "passes": planned.passes, **planned.counts, "images": [asdict(change) for change in planned.changes]})
        return
    for change in planned.changes:
        out.print(f"{change.state:8} {change.image_id}: {change.why}", markup=False, highlight=False, soft_wrap=True)
    for (state, why), count in Counter((change.state, change.why) for change in planned.changes).most_common():
        err.print(f"{count:,} {state}: {why}", markup=False)
    print_facts({"to do": planned.line(), "passes": f"{planned.passes:,} of {planned.plan.passes:,}"})


def _print_unchanged(planned: ReexplainPlan, as_json: bool) -> None:
    url = planned.before.url if planned.before is not None else None
    if as_json:
        print_json({"run": url, "unchanged": True, "passes": 0, **planned.counts})
    else:
        print_facts({"run": url, "images": len(planned.plan.samples), "to do": planned.line()})
