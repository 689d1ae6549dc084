"""Tasks of a run, for the flows `hdm` and `hdm-reexplain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from slugify import slugify

from flows.artifacts import progress_artifact, summary_artifact
from flows.lineage import lineage_artifacts
from flows.tables import hdm_tables
from flows.training import train_classifier
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError
from pipeline.execution.driver import RunSummary, explain_run
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.workflow import Steps


class StepFailedError(Exception):
    """Failure of a step of a run, with the message of its task."""


def _is_transient(_: Any, __: TaskRun, state: State[Any]) -> bool:
    """Return True unless the failure is a mistake of the user."""
    return not isinstance(state.result(raise_on_failure=False), InputError)


@task(name="explain", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[30, 300], retry_condition_fn=_is_transient)
def explain(plan: Plan, store: RunStore) -> RunSummary:
    """Explain every shard that is not committed."""
    summary = explain_run(plan, store, progress_artifact(slugify(f"{plan.config.name} progress"), "images explained"))
    lineage_artifacts(plan.config, store.url)
    return summary


def task_steps(plan: Callable[[RunConfig], tuple[Plan, RunStore] | None]) -> Steps:
    """Return the steps of a run as tasks of the current flow run.

    Each raises `StepFailedError` with the message of its task.

    Args:
        plan: the plan step, which differs between the flows.
    """

    def execute(plan: Plan, store: RunStore) -> RunSummary:
        summary: RunSummary = result_of(explain(plan, store, return_state=True))
        return summary

    def report(store: RunStore) -> str:
        return str(result_of(hdm_tables(store.url, dict(store.storage.options) or None, return_state=True)))

    return Steps(lambda training: result_of(train_classifier(training, return_state=True)), plan, execute, report)


def result_of(state: State[Any]) -> Any:
    """Return the result of a task or flow run.

    Raises:
        StepFailedError: if it failed.
    """
    if state.is_failed():
        error = state.result(raise_on_failure=False)
        raise StepFailedError(str(error) if isinstance(error, InputError) else str(state.message))
    return state.result()


def completed(summary: RunSummary) -> State[Any]:
    """Write the summary artifact, and return the flow's final state."""
    summary_artifact(slugify(f"{summary.store.metadata()['name']} summary"), summary)
    failed = f"; {text}" if (text := summary.failure_text()) else ""
    return Completed(message=f"{summary.images} images; maps and records: {summary.url}; report: {summary.report}{failed}")
