"""Command `hdm export RUN virelay`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json

_NAMED = 20  # images that are left out and named


def virelay(
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="a new folder of this machine")],
    method: Annotated[str | None, typer.Option(help="whose maps are written, instead of the run's first method")] = None,
    as_json: Json = False,
) -> None:
    """Write crops and maps as the HDF5 files of ViRelAy and CoRelAy."""
    from pipeline.export.virelay import export_virelay
    from pipeline.runs import RunStore

    images, missing = export_virelay(RunStore.open(context.obj), to, method)
    if as_json:
        print_json({"to": to, "images": images, "missing": missing})
        return
    for image_id in missing[:_NAMED]:
        err.print(f"{image_id}: left out, its file is gone, has changed or cannot be read", markup=False, soft_wrap=True)
    out.print(f"{to}: {images:,} images, {len(missing):,} left out", markup=False, soft_wrap=True)
