"""The flow `hdm`: plan, explain, aggregate, report."""

from __future__ import annotations

import logging
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.explaining import finish, train_first
from flows.parameters import Changes, Config, Limit, Output, Root, changes_of, hint, run_name
from pipeline.config.load import load_config
from pipeline.errors import InputError
from pipeline.execution.driver import plan_run
from pipeline.plan import Plan
from pipeline.runs import RunStore


@task(name="plan", cache_policy=NO_CACHE)
def plan(config: str, changes: dict[str, Any]) -> tuple[Plan, RunStore] | State[Any]:
    """Reads the configuration, lists the dataset, loads the classifier, which may have to be trained first, and lays the run out."""
    try:
        configuration = load_config(config, changes)
        train_first(configuration)
        planned, store = plan_run(configuration)
    except InputError as error:  # somebody's mistake: one line in the interface, no traceback
        return Failed(message=str(error))
    get_run_logger().info("%d images in %d shards, %d passes; %s", len(planned.samples), len(planned.shards), planned.passes, store.url)
    return planned, store


@flow(name="hdm", flow_run_name=run_name)
def hdm(config: Config = "demo", root: Root = None, output: Output = None, limit: Limit = None, changes: Changes = None) -> State[Any]:
    """Explains every image of a dataset.

    Args:
        config: a preset such as demo, cub-full or pm-full, or the path or URL of a YAML file.
        root: the dataset's root. Where it is not given, the Prefect variable named after the preset is taken, such as cub_full_root.
        output: where runs are kept, a folder or a URL. Where it is not given, the Prefect variable hdm_output is taken.
        limit: at most so many images.
        changes: other keys of the configuration, such as {"compute.workers": 2}.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    planning = plan(config, changes_of(config, root, output, limit, changes), return_state=True)
    if planning.is_failed():
        return Failed(message=hint(str(planning.message), config))
    return finish(*cast("tuple[Plan, RunStore]", planning.result()))
