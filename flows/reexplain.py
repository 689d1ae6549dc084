"""Flow `hdm-reexplain`: explain what changed, and compare with the last run."""

from __future__ import annotations

import logging
import os
from pathlib import PurePosixPath
from typing import Any, cast

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.events import emit_event
from prefect.states import Completed, Failed
from slugify import slugify

from flows.artifacts import audit_artifact, changes_artifact, drift_artifact
from flows.parameters import Changes, Config, Limit, Output, Root, changes_of, hint, run_name
from flows.run_tasks import StepFailedError, completed, result_of, task_steps
from pipeline.audit import audit_run, write_audit
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.drift import DriftLimits, compare, exceeded, write_drift
from pipeline.environment import bypass_proxies_on_loopback
from pipeline.errors import InputError
from pipeline.plan import Plan
from pipeline.reexplain.plan import ReexplainPlan, create_run, plan_reexplain
from pipeline.runs import RunStore
from pipeline.workflow import run_steps

DRIFTED = "hdm.drift.exceeded"


@task(name="compare with the last run", cache_policy=NO_CACHE)
def plan_changes(config: RunConfig, since: str | None) -> ReexplainPlan | State[Any]:
    """Read every image once, and list which must be explained again."""
    try:
        planned = plan_reexplain(config, since)
    except InputError as error:  # a mistake of the user: one line in the interface, no traceback
        return Failed(message=str(error))
    for line in planned.plan.notes.lines():
        get_run_logger().warning("%s", line)
    get_run_logger().info("%s; %d passes", planned.line(), 0 if planned.unchanged else planned.passes)
    return planned


@task(name="drift", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[10, 60])
def drift(before: RunStore, after: RunStore, limits: DriftLimits) -> list[str] | State[Any]:
    """Compare two runs image by image.

    Writes drift.parquet, a page and an artifact; emits an event if a limit is exceeded.
    """
    try:
        comparison = compare(before, after)
    except InputError as error:
        return Failed(message=str(error))
    page = write_drift(after, comparison, limits)
    violations = exceeded(comparison, limits)
    name = after.metadata()["name"]
    drift_artifact(slugify(f"{name} drift"), comparison, violations, page)
    if violations:
        resource = {"prefect.resource.id": f"hdm.run.{name}", "prefect.resource.name": name}
        emit_event(DRIFTED, resource, payload={"limits": "; ".join(violations), "page": page})
    return violations


@task(name="audit", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=[10, 60])
def find_shortcuts(store: RunStore) -> int | State[Any]:
    """Audit a run, and return the number of confirmed findings.

    Writes audit.parquet, a page and an artifact; confirmed findings are warnings in the log.
    """
    try:
        found = audit_run(store)
    except InputError as error:
        return Failed(message=str(error))
    page = write_audit(found)
    audit_artifact(slugify(f"{store.metadata()['name']} audit"), found, page)
    confirmed = [finding.text for finding in found.findings if finding.confirmed]
    for text in confirmed:
        get_run_logger().warning("%s", text)
    return len(confirmed)


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
    audit: bool = True,
) -> State[Any]:
    """Explain a dataset again, computing only what changed since the last run.

    The new run is then compared with the last one.

    Args:
        config: a preset such as demo, cub-full or pm-full, or the path or URL of a YAML file; its runs are called NAME and NAME-TIME.
        root: the dataset's root; default: the Prefect variable named after the preset, such as cub_full_root.
        output: the folder or URL where runs are stored; default: the Prefect variable hdm_output.
        limit: maximum number of images.
        changes: other keys of the configuration, such as {"compute.workers": 2}.
        since: the run to compare with, instead of the newest of this configuration.
        limits: limits of the drift, such as {"flips": 0.02, "spearman": 0.7}.
        fail_on_drift: fail the flow if a limit is exceeded, beside emitting the event hdm.drift.exceeded.
        audit: look for what the classifier should not look at, as hdm audit does; a finding does not fail the flow.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    bypass_proxies_on_loopback(os.environ)  # a deployment's flow run has a process of its own
    planned: ReexplainPlan | None = None

    def plan(run_config: RunConfig) -> tuple[Plan, RunStore] | None:
        nonlocal planned
        planned = cast("ReexplainPlan", result_of(plan_changes(run_config, since, return_state=True)))
        changes_artifact(slugify(f"{PurePosixPath(config).stem} changes"), planned)
        return None if planned.unchanged else create_run(planned)

    try:
        summary = run_steps(load_config(config, changes_of(config, root, output, limit, changes)), task_steps(plan))
    except (InputError, StepFailedError) as error:
        return Failed(message=hint(str(error), config))
    assert planned is not None  # noqa: S101 - for the type checker: the plan step has set it
    if summary is None:
        return Completed(message=planned.line())
    final = completed(summary)
    if audit:
        find_shortcuts(summary.store, return_state=True)  # a failure is in the task's state: the run is explained all the same
    if planned.before is None:
        return final
    comparing = drift(planned.before, summary.store, limits, return_state=True)
    if comparing.is_failed():
        return Failed(message=f"{final.message}; drift: {comparing.message}")
    violations = cast("list[str]", comparing.result())
    if violations and fail_on_drift:
        return Failed(message=f"drift: {'; '.join(violations)}; {final.message}")
    return Completed(message=f"{final.message}{'; drift: ' if violations else ''}{'; '.join(violations)}")
