"""What the flows that explain share: the work on Ray, and what follows it."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from slugify import slugify

from flows.artifacts import ProgressArtifact, TrainingArtifact, summary_artifact
from flows.tables import hdm_tables
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError
from pipeline.execution.driver import RunSummary, explain_run
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.training.prerequisite import training_before
from pipeline.training.run import train


def train_first(config: RunConfig) -> None:
    """Trains a run's classifier where it is not there yet, with its progress as an artifact."""
    if (training := training_before(config)) is not None:
        train(training, TrainingArtifact(slugify(f"{training.name} training")))


def _may_pass(_: Any, __: TaskRun, state: State[Any]) -> bool:
    """Whether another try may do better: after anything but somebody's mistake."""
    return not isinstance(state.result(raise_on_failure=False), InputError)


@task(name="explain", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[30, 300], retry_condition_fn=_may_pass)
def explain(planned: Plan, store: RunStore) -> RunSummary:
    """Explains every shard that is not committed, on Ray; running the flow again goes on where it was."""
    return explain_run(planned, store, ProgressArtifact(slugify(f"{planned.config.name} progress")))


def finish(planned: Plan, store: RunStore) -> State[Any]:
    """Explains what is planned, aggregates it with the flow `hdm-tables`, and says what came of it."""
    explaining = explain(planned, store, return_state=True)
    if explaining.is_failed():
        return Failed(message=_line(explaining))
    outcome = explaining.result()
    aggregating = hdm_tables(store.url, planned.config.storage or None, return_state=True)
    if aggregating.is_failed():
        return Failed(message=aggregating.message)
    page = str(aggregating.result())
    summary_artifact(slugify(f"{planned.config.name} summary"), store, outcome, page)
    left_out = f"; {outcome.failed_images} images could not be explained, see their status" if outcome.failed_images else ""
    return Completed(message=f"{outcome.images} images; maps and records: {store.url}; report: {page}{left_out}")


def _line(state: State[Any]) -> str:
    """Why a task failed, as one line."""
    error = state.result(raise_on_failure=False)
    return str(error) if isinstance(error, InputError) else str(state.message)
