"""Command `hdm export RUN fiftyone`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json

_NAMED = 20  # images that are left out and named


def fiftyone(
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="FOLDER", help="a new folder of this machine")],
    as_json: Json = False,
) -> None:
    """Write a FiftyOne data set: photographs, classes, heatmaps and metrics.

    It is opened by fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.FiftyOneDataset).
    """
    from pipeline.export.fiftyone import export_fiftyone
    from pipeline.runs import RunStore

    summary = export_fiftyone(RunStore.open(context.obj), to)
    if as_json:
        print_json({"to": to, "samples": summary.samples, "heatmaps": summary.heatmaps, "missing": list(summary.missing)})
        return
    for image_id in summary.missing[:_NAMED]:
        err.print(f"{image_id}: left out, its file is gone, has changed or cannot be read", markup=False, soft_wrap=True)
    out.print(f"{to}: {summary.samples:,} samples, {summary.heatmaps:,} heatmaps, {len(summary.missing):,} images left out", markup=False)
