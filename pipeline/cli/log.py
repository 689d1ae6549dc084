"""Commands `hdm log ...`: a run's results for trackers of experiments."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import out, print_json
from pipeline.cli.options import Json, Run

log = typer.Typer(help="Log a run to a tracker of experiments.", no_args_is_help=True, rich_markup_mode=None)


@log.callback()
def choose_tracker() -> None:
    """Log a run to a tracker of experiments."""


@log.command()
def mlflow(
    run: Run,
    tracking_uri: Annotated[
        str | None, typer.Option(metavar="URI", help="MLflow's server, database or folder; MLFLOW_TRACKING_URI if not given")
    ] = None,
    experiment: Annotated[str, typer.Option(help="the name of MLflow's experiment, made if it is new")] = "hdm",
    limit: Annotated[int, typer.Option(min=1, help="maximum number of images on the page")] = 24,
    as_json: Json = False,
) -> None:
    """Log metrics, tables, the page and its pictures to MLflow."""
    from dataclasses import asdict

    from pipeline.export.mlflow import log_to_mlflow
    from pipeline.runs import RunStore

    logged = log_to_mlflow(RunStore.open(run), tracking_uri, experiment, limit)
    if as_json:
        print_json(asdict(logged))
        return
    text = f"run {logged.run_id} of the experiment {logged.experiment}: {logged.metrics:,} metrics, {logged.artifacts:,} files"
    out.print(text, markup=False, soft_wrap=True)
