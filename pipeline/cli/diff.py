"""The command `hdm diff`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline.cli.console import counting, err, out, print_facts, print_json
from pipeline.cli.execute import FAILED
from pipeline.cli.options import Json

Before = Annotated[str, typer.Argument(metavar="RUN_A", help="the run before: its folder or URL, the one that holds run.json")]
After = Annotated[str, typer.Argument(metavar="RUN_B", help="the run after")]
Out = Annotated[str | None, typer.Option("--out", help="a folder or URL for drift.parquet and the page, instead of RUN_B")]
Limits = Annotated[
    list[str] | None, typer.Option("--limit", metavar="NAME=VALUE", help="fail beyond it, such as flips=0.02 or spearman=0.7")
]

_CLASSES = 5  # that are printed


def diff(before: Before, after: After, limit: Limits = None, out_: Out = None, as_json: Json = False) -> None:
    """Compare two runs image by image: what changed in the answers and in the maps. Exits with 1 if a limit is exceeded."""
    from pipeline.cli.limits import parse_limits
    from pipeline.drift import compare, exceeded, write_drift
    from pipeline.drift.write import NAME
    from pipeline.errors import InputError, one_line
    from pipeline.runs import RunStore
    from pipeline.storage.objects import Storage

    limits = parse_limits(limit) if limit else None
    first, second = RunStore.open(before), RunStore.open(after)
    try:
        place = None if out_ is None else Storage(out_)
    except (ValueError, ImportError) as error:
        raise InputError(f"--out {out_}: {one_line(error)}") from None
    with counting("maps") as show:
        drift = compare(first, second, show)
    try:
        page = write_drift(second, drift, limits, place)
    except OSError as error:
        raise InputError(
            f"{(place or second.storage).url('')} cannot be written: {one_line(error)}; choose another place with --out"
        ) from None
    broken = exceeded(drift, limits) if limits else []
    if as_json:
        print_json(
            {
                "before": first.url,
                "after": second.url,
                "images": asdict(drift.images),
                "statistics": [
                    {"method": found.method, "class_name": found.class_name, "quantity": found.quantity, **asdict(found.estimate)}
                    for found in drift.statistics
                ],
                "exceeded": broken,
                "drift": (place or second.storage).url(NAME),
                "page": page,
            }
        )
    else:
        _print(drift)
        out.print(page, markup=False, soft_wrap=True)
    if broken:
        for line in broken:
            err.print(f"limit exceeded: {line}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED)


def _print(drift: Any) -> None:
    """The counts, and the means: of all images, and of the classes that drifted most."""
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
    rows: dict[tuple[str, str | None], dict[str, Any]] = {}
    for found in drift.statistics:
        rows.setdefault((found.method, found.class_name), {})[found.quantity] = found.estimate
    alike = [name for name in QUANTITIES if name not in METRICS]
    table = Table("method", "class", *alike, "images", box=None)
    for method in drift.methods:
        own = [(name, row) for (of, name), row in rows.items() if of == method]
        for name, row in own[: 1 + _CLASSES]:
            label = ("", Text(name)) if name is not None else (method, "all")
            table.add_row(*label, *(_cell(row[quantity]) for quantity in alike), str(row["flips"].n))
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


def _cell(found: Any) -> str:
    return "-" if found.mean is None else f"{found.mean:.3f}\n{found.low:.3f} to {found.high:.3f}"
