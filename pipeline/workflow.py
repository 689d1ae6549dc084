"""Workflow of a run: train, plan, execute, aggregate and report.

The commands, the Prefect flows and `pipeline.run` all go through `run_steps`; they differ in the steps that they pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.execution.driver import RunSummary, explain_run, plan_run
from pipeline.execution.measure import measure_run, plan_measure
from pipeline.monitoring.progress import ProgressCallback, no_progress
from pipeline.plan import Plan
from pipeline.plan import make_plan as _make_plan
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.training.config import TrainConfig
from pipeline.training.prerequisite import training_before
from pipeline.training.run import train

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Steps:
    """Steps of a run, in their order.

    Attributes:
        train: trains the classifier; called only if the run names a training and its classifier is missing.
        plan: plans the run and creates it on storage; None if there is nothing to do.
        execute: explains the shards that are not committed.
        report: aggregates the run and writes its page; returns the page's URL.
    """

    train: Callable[[TrainConfig], object]
    plan: Callable[[RunConfig], tuple[Plan, RunStore] | None]
    execute: Callable[[Plan, RunStore], RunSummary]
    report: Callable[[RunStore], str]


def default_steps(on_progress: ProgressCallback = no_progress) -> Steps:
    """Return the steps of `hdm run`, in this process."""
    return Steps(partial(train, on_progress=on_progress), plan_run, partial(explain_run, on_progress=on_progress), write_report)


def run_steps(config: RunConfig, steps: Steps) -> RunSummary | None:
    """Walk through all steps of a run; None if the plan step found nothing to do.

    Raises:
        InputError: if the run cannot start.
        RunError: if it cannot continue; calling again resumes it.
    """
    if (training := training_before(config)) is not None:
        _log.info("%s is not trained yet: %s comes first", config.classifier.path, config.classifier.train)
        steps.train(training)
    planned = steps.plan(config)
    return None if planned is None else finish_steps(*planned, steps)


def finish_steps(plan: Plan, store: RunStore, steps: Steps) -> RunSummary:
    """Walk through the steps that follow the plan.

    Raises:
        InputError: if the machine or the cluster does not fit the configuration.
        RunError: if the run cannot continue; calling again resumes it.
    """
    summary = steps.execute(plan, store)
    summary.report = steps.report(store)
    return summary


def run(config: RunConfig | str | Mapping[str, Any], progress: ProgressCallback | None = None) -> RunSummary:
    """Explain a dataset, as `hdm run` does; calling again resumes the run.

    Args:
        config: the configuration, a preset's name, the path or URL of a YAML file, or a mapping.
        progress: called with a `Progress` about twice per second.

    Raises:
        InputError: if the run cannot start.
        RunError: if it cannot continue.

    Example:
        >>> import pipeline
        >>> config = pipeline.load_config("demo", {"output": "runs", "dataset.limit": 2, "compute.executor": "local"})
        >>> summary = pipeline.run(config)
        >>> summary.statuses
        {'ok': 2}
    """
    summary = run_steps(_loaded(config), default_steps(progress or no_progress))
    assert summary is not None  # noqa: S101 - for the type checker: plan_run always returns a plan
    return summary


def measure(
    url: str, changes: Mapping[str, Any] | None = None, *, replace: bool = False, progress: ProgressCallback | None = None
) -> RunSummary:
    """Measure the stored maps of a finished run, as `hdm measure` does.

    Args:
        url: the run's folder or URL.
        changes: dotted keys below `metrics` and `compute` -> values.
        replace: replace the numbers of another baseline or protocol, or of more metrics.
        progress: called with a `Progress` about twice per second.

    Raises:
        InputError: if the run is not finished, its classifier or dataset has changed, or it has numbers of other settings.
        RunError: if it cannot continue; calling again resumes it.

    Example:
        >>> import pipeline
        >>> changes = {"output": "runs", "metrics": "none", "methods": ["grad_cam"], "dataset.limit": 2, "compute.executor": "local"}
        >>> explained = pipeline.run(pipeline.load_config("demo", changes))
        >>> summary = pipeline.measure(explained.url, {"metrics.names": ["deletion_auc"]})
        >>> summary.statuses
        {'ok': 2}
    """
    summary = measure_run(plan_measure(url, changes, replace_numbers=replace), progress or no_progress)
    summary.report = write_report(summary.store)
    return summary


def make_plan(config: RunConfig | str | Mapping[str, Any]) -> Plan:
    """Plan a run without starting it.

    This lists the images, checks the classifier and cuts the images into shards.

    Args:
        config: as for `run`.

    Raises:
        InputError: if the run cannot start.

    Example:
        >>> import pipeline
        >>> plan = pipeline.make_plan("demo")
        >>> len(plan.samples)
        6
    """
    return _make_plan(_loaded(config))


def _loaded(config: RunConfig | str | Mapping[str, Any]) -> RunConfig:
    return config if isinstance(config, RunConfig) else load_config(config)
