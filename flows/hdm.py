"""The flow `hdm`: plan, explain, aggregate, report."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, cast

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.variables import Variable
from slugify import slugify

from flows.artifacts import ProgressArtifact, TrainingArtifact, summary_artifact, table_artifact
from pipeline.errors import InputError
from pipeline.loading import load_config
from pipeline.plan import Plan
from pipeline.report import write_report
from pipeline.run import Outcome, explain_run, plan_run
from pipeline.store import RunStore
from pipeline.tables import aggregate as aggregate_run
from pipeline.training.first import training_before
from pipeline.training.run import train as train_classifier


def _run_name() -> str:
    return f"{runtime.flow_run.parameters['config']} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@task(name="plan", cache_policy=NO_CACHE)
def plan(config: str, changes: dict[str, Any]) -> tuple[Plan, RunStore] | State[Any]:
    """Reads the configuration, lists the dataset, loads the classifier, which may have to be trained first, and lays the run out."""
    try:
        configuration = load_config(config, changes)
        if (training := training_before(configuration)) is not None:
            train_classifier(training, TrainingArtifact(slugify(f"{training.name} training")))
        planned, store = plan_run(configuration)
    except InputError as error:  # somebody's mistake: one line in the interface, no traceback
        return Failed(message=str(error))
    get_run_logger().info("%d images in %d shards, %d passes; %s", len(planned.samples), len(planned.shards), planned.passes, store.url)
    return planned, store


@task(name="explain", cache_policy=NO_CACHE)
def explain(planned: Plan, store: RunStore) -> Outcome | State[Any]:
    """Explains every shard that is not committed, on Ray; running the flow again goes on where it was."""
    try:
        return explain_run(planned, store, ProgressArtifact(slugify(f"{planned.config.name} progress")))
    except InputError as error:
        return Failed(message=str(error))


@task(name="aggregate", cache_policy=NO_CACHE)
def aggregate(store: RunStore, name: str) -> None:
    """Records become tables.parquet and a table artifact."""
    table_artifact(slugify(f"{name} metrics"), aggregate_run(store))


@task(name="report", cache_policy=NO_CACHE)
def report(store: RunStore, outcome: Outcome, name: str) -> str:
    """Writes the page of pictures, and a summary artifact that leads to it."""
    page: str = write_report(store)
    summary_artifact(slugify(f"{name} summary"), store, outcome, page)
    return page


@flow(name="hdm", flow_run_name=_run_name)
def hdm(
    config: str = "demo",
    root: str | None = None,
    output: str | None = None,
    limit: int | None = None,
    changes: dict[str, Any] | None = None,
) -> State[Any]:
    """Explains every image of a dataset.

    Args:
        config: a preset such as demo, cub-full or pm-full, or the path or URL of a YAML file.
        root: the dataset's root. Where it is not given, the Prefect variable named after the preset is taken, such as cub_full_root.
        output: where runs are kept, a folder or a URL.
        limit: at most so many images.
        changes: other keys of the configuration, such as {"compute.workers": 2}.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    variable = f"{slugify(config, separator='_')}_root"
    given = {"dataset.root": root or Variable.get(variable, default=None), "output": output, "dataset.limit": limit}
    planning = plan(config, {key: value for key, value in given.items() if value is not None} | (changes or {}), return_state=True)
    if planning.is_failed():
        hint = f", the flow's parameter root or the Prefect variable {variable}" if "root is missing" in str(planning.message) else ""
        return Failed(message=f"{planning.message}{hint}")
    planned, store = cast("tuple[Plan, RunStore]", planning.result())
    explaining = explain(planned, store, return_state=True)
    if explaining.is_failed():
        return Failed(message=explaining.message)
    outcome = cast("Outcome", explaining.result())
    aggregate(store, planned.config.name)
    page = report(store, outcome, planned.config.name)
    left_out = f"; {outcome.unexplained} images could not be explained, see their status" if outcome.unexplained else ""
    return Completed(message=f"{outcome.images} images; maps and records: {store.url}; report: {page}{left_out}")
