"""The flow `hdm-reexplain`: what changed since the last run is explained anew, and compared with it."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed, Failed
from slugify import slugify

from flows.artifacts import changes_artifact, drift_artifact
from flows.explaining import finish, train_first
from flows.parameters import Changes, Config, Limit, Output, Root, changes_of, hint, run_name
from pipeline.config.load import load_config
from pipeline.drift import DriftLimits, compare, exceeded, write_drift
from pipeline.errors import InputError
from pipeline.reexplain.plan import ReexplainPlan, create_run, plan_reexplain
from pipeline.runs import RunStore

DRIFTED = "hdm.drift.exceeded"


@task(name="compare with the last run", cache_policy=NO_CACHE)
def plan_the_changes(config: str, changes: dict[str, Any], since: str | None) -> ReexplainPlan | State[Any]:
    """Reads every image once and says which must be explained again, and why."""
    try:
        configuration = load_config(config, changes)
        train_first(configuration)
        again = plan_reexplain(configuration, since)
    except InputError as error:  # somebody's mistake: one line in the interface, no traceback
        return Failed(message=str(error))
    get_run_logger().info("%s; %d passes", again.line(), 0 if again.unchanged else again.passes)
    return again


@task(name="drift", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[10, 60])
def drift(before: RunStore, after: RunStore, limits: DriftLimits) -> list[str] | State[Any]:
    """Compares two runs image by image: drift.parquet, a page, an artifact, and an event where a limit is exceeded."""
    try:
        found = compare(before, after)
    except InputError as error:
        return Failed(message=str(error))
    page = write_drift(after, found, limits)
    lines = exceeded(found, limits)
    name = after.metadata()["name"]
    drift_artifact(slugify(f"{name} drift"), found, lines, page)
    if lines:
        resource = {"prefect.resource.id": f"hdm.run.{name}", "prefect.resource.name": name}
        emit_event(DRIFTED, resource, payload={"limits": "; ".join(lines), "page": page})
    return lines


@flow(name="hdm-reexplain", flow_run_name=run_name)
def hdm_reexplain(
    config: Config = "demo",
    root: Root = None,
    output: Output = None,
    limit: Limit = None,
    changes: Changes = None,
    since: str | None = None,
    limits: DriftLimits = DriftLimits(),  # noqa: B008 - frozen
    fail_on_drift: bool = True,
) -> State[Any]:
    """Explains a dataset again: computes only what changed since the last run, and says what changed in why the model decides.

    Args:
        config: a preset such as demo, cub-full or pm-full, or the path or URL of a YAML file; its runs are called NAME and NAME-TIME.
        root: the dataset's root. Where it is not given, the Prefect variable named after the preset is taken, such as cub_full_root.
        output: where runs are kept, a folder or a URL. Where it is not given, the Prefect variable hdm_output is taken.
        limit: at most so many images.
        changes: other keys of the configuration, such as {"compute.workers": 2}.
        since: the run to compare with, instead of the newest of this configuration.
        limits: how much drift is too much, such as {"flips": 0.02, "spearman": 0.7}.
        fail_on_drift: whether a limit that is exceeded fails the flow, beside raising the event hdm.drift.exceeded.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    planning = plan_the_changes(config, changes_of(config, root, output, limit, changes), since, return_state=True)
    if planning.is_failed():
        return Failed(message=hint(str(planning.message), config))
    again = cast("ReexplainPlan", planning.result())
    changes_artifact(slugify(f"{PurePosixPath(config).stem} changes"), again)
    if again.unchanged:
        return Completed(message=again.line())
    try:
        planned, store = create_run(again)
    except InputError as error:
        return Failed(message=str(error))
    finished = finish(planned, store)
    if finished.is_failed() or again.before is None:
        return finished
    comparing = drift(again.before, store, limits, return_state=True)
    if comparing.is_failed():
        return Failed(message=f"{finished.message}; drift: {comparing.message}")
    lines = cast("list[str]", comparing.result())
    if lines and fail_on_drift:
        return Failed(message=f"drift: {'; '.join(lines)}; {finished.message}")
    return Completed(message=f"{finished.message}{'; drift: ' if lines else ''}{'; '.join(lines)}")
