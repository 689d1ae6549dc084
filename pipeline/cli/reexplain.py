"""The command `hdm reexplain`."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.cli.console import counting, err, out, print_facts, print_json
from pipeline.cli.execute import drive, train_first
from pipeline.cli.options import Config, Json, Limit, Output, Root, Set, configuration

Since = Annotated[str | None, typer.Option(metavar="RUN", help="the run to take from, instead of the newest of this configuration")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done of every image, and why")]

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
    """Explain a dataset again, and compute only what changed since the last run."""
    from pipeline.reexplain.plan import create_run, plan_reexplain

    chosen = configuration(config, output, root, limit, set_)
    if not dry_run:
        train_first(chosen)
    with counting("reading images") as show:
        again = plan_reexplain(chosen, since, show)
    if dry_run:
        _print(again, as_json)
    elif again.unchanged and again.before is not None:
        _print_unchanged(again, as_json)
    else:
        _log.info("%s", again.line())
        drive(*create_run(again), as_json)


def _print(again: Any, as_json: bool) -> None:
    facts = {"run": again.plan.config.name, "before": again.before and again.before.url, "unfinished": again.unfinished}
    if as_json:
        print_json({**facts, "passes": again.passes, **again.counts, "images": [asdict(change) for change in again.changes]})
        return
    for change in again.changes:
        out.print(f"{change.state:8} {change.image_id}: {change.why}", markup=False, highlight=False, soft_wrap=True)
    for (state, why), count in Counter((change.state, change.why) for change in again.changes).most_common():
        err.print(f"{count:,} {state}: {why}", markup=False)
    print_facts({"to do": again.line(), "passes": f"{again.passes:,} of {again.plan.passes:,}"})


def _print_unchanged(again: Any, as_json: bool) -> None:
    if as_json:
        print_json({"run": again.before.url, "unchanged": True, "passes": 0, **again.counts})
    else:
        print_facts({"run": again.before.url, "images": len(again.plan.samples), "to do": again.line()})
