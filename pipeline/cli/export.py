"""Commands `hdm export RUN ...`: one function per form of the export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli.console import err, out, print_facts, print_json
from pipeline.cli.execute import FAILED, UNEXPLAINED
from pipeline.cli.export_fiftyone import fiftyone
from pipeline.cli.export_virelay import virelay
from pipeline.cli.options import Json, Run
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.export import ExportSettings, ExportSummary

To = Annotated[str, typer.Option("--to", metavar="FOLDER|URL", help="a new folder, or one with the same export, interrupted")]
Where = Annotated[str | None, typer.Option(metavar="SQL", help='a condition on the records, such as "insertion_auc < 0.2 and label = 3"')]
Methods = Annotated[str | None, typer.Option(metavar="ID,...", help="the methods; all of the run if not given")]
Size = Annotated[str, typer.Option(metavar="original|N", help="the long side of the pictures, in pixels; never more than the photograph's")]
Replace = Annotated[bool, typer.Option("--replace", help="remove an earlier export in the folder first")]

_LINES = 100  # photographs that are gone, one line each; manifest.csv has all
_FORMS = ("overlays", "maps", "fiftyone", "virelay")

export = typer.Typer(help="Write the maps of a run as files for other programs.", no_args_is_help=True, rich_markup_mode=None)


@export.callback(invoke_without_command=True)
def choose_run(context: typer.Context, run: Run) -> None:
    """Write the maps of a run as files for other programs."""
    if context.invoked_subcommand is None:
        raise InputError(f"say what to write: {', '.join(_FORMS[:-1])} or {_FORMS[-1]}, such as hdm export {run} overlays --to out")
    context.obj = run


@export.command()
def overlays(
    context: typer.Context,
    to: To,
    where: Where = None,
    methods: Methods = None,
    size: Size = "original",
    no_photograph: Annotated[
        bool, typer.Option("--no-photograph", help="write the colours alone, transparent outside the crop, to lay over the photograph")
    ] = False,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Draw the maps over their whole photographs, PNG.

    The photograph is upright. Outside the crop that the network saw, it stays as it is. manifest.csv says which file is which image's.
    """
    from pipeline.export import ExportSettings

    settings = ExportSettings("overlays", "png", _names(methods), where, _pixels(size), photograph=not no_photograph)
    _export(context.obj, to, settings, replace, as_json)


@export.command()
def maps(
    context: typer.Context,
    to: To,
    format_: Annotated[Literal["png", "tiff", "geojson"], typer.Option("--format", help="16-bit PNG, float TIFF, or contours")] = "png",
    levels: Annotated[str, typer.Option(metavar="LEVEL,...", help="the thresholds of the contours")] = "0.5",
    where: Where = None,
    methods: Methods = None,
    size: Size = "original",
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Write the maps in the pixels of the upright photograph.

    PNG: 65535 times the map, and 0 outside the crop that the network saw. TIFF: the map, and NaN outside. GeoJSON: polygons where a map
    is at least a threshold.
    """
    from pipeline.export import ExportSettings

    settings = ExportSettings("maps", format_, _names(methods), where, _pixels(size), _levels(levels))
    _export(context.obj, to, settings, replace, as_json)


def _export(run: str, to: str, settings: ExportSettings, replace: bool, as_json: bool) -> None:
    """Export and print the result; exit with 1 without a file, 3 without a photograph."""
    from pipeline.export import export_run
    from pipeline.monitoring.progress import progress_bar
    from pipeline.runs import RunStore

    store = RunStore.open(run)
    with progress_bar(err) as on_progress:
        summary = export_run(store, to, settings, replace=replace, on_progress=on_progress)
    for image_id, reason in summary.gone[:_LINES]:
        _line(f"{image_id}: not exported: {reason}")
    if len(summary.gone) > _LINES:
        _line(f"and {len(summary.gone) - _LINES:,} more photographs, see manifest.csv")
    _print(store.url, summary, as_json)
    if not summary.files:
        raise typer.Exit(FAILED)
    if summary.gone:
        raise typer.Exit(UNEXPLAINED)


def _print(run: str, summary: ExportSummary, as_json: bool) -> None:
    if as_json:
        facts = {"run": run, "export": summary.url or None, "matched": summary.matched, "files": summary.files, "kept": summary.kept}
        print_json({**facts, "without_file": dict(summary.statuses), "photographs_gone": len(summary.gone)})
        return
    if not summary.matched:
        out.print("no map matches; nothing was written", markup=False)
        return
    without = ", ".join(f"{count:,} {status}" for status, count in sorted(summary.statuses.items()))
    files = f"{summary.files:,}" + (f", of which {summary.kept:,} were there" if summary.kept else "")
    print_facts({"run": run, "export": summary.url, "files": files, **({"without a file": without} if without else {})})


def _line(text: str) -> None:
    from pipeline.errors import one_line

    err.print(one_line(Exception(text)), markup=False, highlight=False, soft_wrap=True)


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _pixels(text: str) -> int | None:
    if text == "original":
        return None
    if not text.isdecimal():
        raise InputError(f"--size {text}: give original, or the long side in pixels")
    return int(text)


def _levels(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(level) for level in text.split(","))
    except ValueError:
        raise InputError(f"--levels {text}: give numbers with commas between, such as 0.5,0.8") from None


export.command()(fiftyone)
export.command()(virelay)
