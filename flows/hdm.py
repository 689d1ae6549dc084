"""Flow `hdm`: train, plan, explain, aggregate, report."""

from __future__ import annotations

import logging
import os
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.parameters import Changes, Config, Limit, Output, Root, changes_of, hint, run_name
from flows.run_tasks import StepFailedError, completed, result_of, task_steps
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.environment import bypass_proxies_on_loopback
from pipeline.errors import InputError
from pipeline.execution.driver import plan_run
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.workflow import run_steps


@task(name="plan", cache_policy=NO_CACHE)
def plan(config: RunConfig) -> tuple[Plan, RunStore] | State[Any]:
    """List the dataset, load the classifier, and create the run on storage."""
    try:
        planned, store = plan_run(config)
    except InputError as error:  # a mistake of the user: one line in the interface, no traceback
        return Failed(message=str(error))
    for line in planned.notes.lines():
        get_run_logger().warning("%s", line)
    get_run_logger().info("%d images in %d shards, %d passes; %s", len(planned.samples), len(planned.shards), planned.passes, store.url)
    return planned, store


@flow(name="hdm", flow_run_name=run_name)
def hdm(config: Config = "demo", root: Root = None, output: Output = None, limit: Limit = None, changes: Changes = None) -> State[Any]:
    """Explain every image of a dataset.

    Args:
        config: a preset such as demo, cub-full or pm-full, or the path or URL of a YAML file.
        root: the dataset's root; default: the Prefect variable named after the preset, such as cub_full_root.
        output: the folder or URL where runs are stored; default: the Prefect variable hdm_output.
        limit: maximum number of images.
        changes: other keys of the configuration, such as {"compute.workers": 2}.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    bypass_proxies_on_loopback(os.environ)  # a deployment's flow run has a process of its own
    steps = task_steps(lambda run_config: cast("tuple[Plan, RunStore]", result_of(plan(run_config, return_state=True))))
    try:
        summary = run_steps(load_config(config, changes_of(config, root, output, limit, changes)), steps)
    except (InputError, StepFailedError) as error:
        return Failed(message=hint(str(error), config))
    assert summary is not None  # noqa: S101 - for the type checker: the plan step always returns a plan
    return completed(summary)
