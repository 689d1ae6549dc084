"""Commands `hdm export RUN ...`: one function per form of the export."""

from __future__ import annotations

import typer

from pipeline.cli.export_fiftyone import fiftyone
from pipeline.cli.export_virelay import virelay
from pipeline.cli.options import Run

export = typer.Typer(help="Write the maps of a run as files for other programs.", no_args_is_help=True, rich_markup_mode=None)


@export.callback()
def choose_run(context: typer.Context, run: Run) -> None:
    """Write the maps of a run as files for other programs."""
    context.obj = run


export.command()(fiftyone)
export.command()(virelay)
