"""Flow `hdm-alarm`: notify people of drift beyond a run's limits."""

from __future__ import annotations

from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.schemas.objects import State
from prefect.states import Completed
from prefect.variables import Variable
from slugify import slugify

from flows.parameters import Run

BLOCK_VARIABLE = "hdm_notification"


@flow(name="hdm-alarm", flow_run_name="{run}")
def hdm_alarm(run: Run, limits: str, page: str) -> State[Any]:
    """Notify people of drift.

    prefect.yaml starts it at the event hdm.drift.exceeded.

    Args:
        run: the run that drifted.
        limits: the limits that were exceeded, with the values.
        page: URL of the drift page.
    """
    create_markdown_artifact(f"# {run} drifted\n\n- {limits}\n- the page: `{page}`", key=slugify(f"{run} alarm"))
    block = Variable.get(BLOCK_VARIABLE, default=None)
    if block is None:
        get_run_logger().warning("%s drifted: %s; the variable %s names no block to notify", run, limits, BLOCK_VARIABLE)
        return Completed(message=f"{run} drifted: {limits}")
    cast("NotificationBlock", Block.load(str(block))).notify(f"{limits}\n{page}", subject=f"hdm: {run} drifted")
    return Completed(message=f"{run} drifted: {limits}; {block} was notified")
