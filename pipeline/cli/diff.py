"""Command `hdm diff`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import err, out, print_facts, print_json
from pipeline.cli.execute import FAILED
from pipeline.cli.options import Json

if TYPE_CHECKING:
    from pipeline.drift import Drift
    from pipeline.tables.bootstrap import Estimate

Before = Annotated[str, typer.Argument(metavar="RUN_A", help="the run before: its folder or URL, the one that holds run.json")]
After = Annotated[str, typer.Argument(metavar="RUN_B", help="the run after")]
Out = Annotated[str | None, typer.Option("--out", help="the folder or URL for drift.parquet and the page, instead of RUN_B")]
Limits = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="NAME=VALUE", help="exit with 1 beyond this limit, such as flips=0.02 or spearman=0.7"),
]

_CLASSES = 5  # classes that are printed


def diff(before: Before, after: After, limit: Limits = None, out_: Out = None, as_json: Json = False) -> None:
    """Compare the predictions and maps of two runs, image by image.

    Exits with 1 if a limit is exceeded.
    """
    from hdm_core.metrics.registry import metrics_on_request
    from pipeline.cli.limits import parse_limits
    from pipeline.drift import DriftLimits, compare, exceeded, write_drift
    from pipeline.drift.write import NAME
    from pipeline.errors import InputError, one_line
    from pipeline.monitoring.progress import progress_bar
    from pipeline.runs import RunStore
    from pipeline.storage.objects import Storage

    limits = parse_limits(limit, DriftLimits, "flips=0.02") if limit else None
    first, second = RunStore.open(before), RunStore.open(after)
    try:
        target = None if out_ is None else Storage(out_)
    except (ValueError, ImportError) as error:
        raise InputError(f"--out {out_}: {one_line(error)}") from None
    with progress_bar(err) as on_progress:
        drift = compare(first, second, on_progress)
    try:
        page = write_drift(second, drift, limits, target)
    except OSError as error:
        raise InputError(
            f"{(target or second.storage).url('')} cannot be written: {one_line(error)}; choose another place with --out"
        ) from None
    violations = exceeded(drift, limits) if limits else []
    unnamed = metrics_on_request()
    if as_json:
        print_json(
            {
                "before": first.url,
                "after": second.url,
                "images": asdict(drift.images),
                "statistics": [
                    {
                        "method": statistic.method,
                        "class_name": statistic.class_name,
                        "quantity": statistic.quantity,
                        **asdict(statistic.estimate),
                    }
                    for statistic in drift.statistics
                    if statistic.estimate.n or statistic.quantity not in unnamed
                ],
                "exceeded": violations,
                "drift": (target or second.storage).url(NAME),
                "page": page,
            }
        )
    else:
        _print(drift)
        out.print(page, markup=False, soft_wrap=True)
    if violations:
        for line in violations:
            err.print(f"limit exceeded: {line}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED)


def _print(drift: Drift) -> None:
    """Print counts and means, of all images and of the classes that drifted most."""
    from hdm_core import METRICS
    from pipeline.drift.summary import QUANTITIES
    from pipeline.tables.aggregate import TITLES

    counts = drift.images
    print_facts(
        {
            "compared": f"{counts.same:,} images",
            "not compared": f"{counts.changed:,} changed, {counts.gone:,} gone, {counts.new:,} new, {counts.waiting:,} not done yet",
            "done": f"{counts.done_before:,} of {counts.before:,} before, {counts.done_after:,} of {counts.after:,} after",
        }
    )
    rows: dict[tuple[str, str | None], dict[str, Estimate]] = {}
    for statistic in drift.statistics:
        rows.setdefault((statistic.method, statistic.class_name), {})[statistic.quantity] = statistic.estimate
    similarities = [name for name in QUANTITIES if name not in METRICS]
    table = Table("method", "class", *similarities, "images", box=None)
    for method in drift.methods:
        classes = [(name, row) for (row_method, name), row in rows.items() if row_method == method]
        for name, row in classes[: 1 + _CLASSES]:
            label = ("", Text(name)) if name is not None else (method, "all")
            table.add_row(*label, *(_cell(row[quantity]) for quantity in similarities), str(row["flips"].n))
    out.print(table)
    measured = [metric for metric in METRICS if any(row[metric].n for row in rows.values())]
    if measured:
        changes = Table("change of", *(f"{TITLES[metric]} {METRICS[metric].arrow}" for metric in measured), box=None)
        for method in drift.methods:
            changes.add_row(method, *(_cell(rows[method, None][metric]) for metric in measured))
        out.print(changes)
    out.print(
        f"means, and their 95% intervals below; after minus before; at most {_CLASSES} classes, those that drifted most", markup=False
    )


def _cell(estimate: Estimate) -> str:
    return "-" if estimate.mean is None else f"{estimate.mean:.3f}\n{estimate.low:.3f} to {estimate.high:.3f}"
