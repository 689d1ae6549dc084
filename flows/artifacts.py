"""What a flow run shows in Prefect: how far it is, its metrics, and where its results are."""

from __future__ import annotations

import time
from collections import Counter
from uuid import UUID

import pyarrow as pa
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact, update_progress_artifact

from pipeline.drift import Drift
from pipeline.drift.statistics import Estimate
from pipeline.drift.summary import QUANTITIES
from pipeline.execution.driver import RunSummary
from pipeline.monitoring.progress import State, clock, throttle
from pipeline.reexplain.plan import ReexplainPlan
from pipeline.runs import RunStore
from pipeline.tables.aggregate import layout_table
from pipeline.training.progress import Epoch
from pipeline.training.run import Trained

_SECONDS = 5.0  # between two messages to Prefect's server


class ProgressArtifact:
    """A run's progress as a Prefect artifact and as lines of the flow's log."""

    def __init__(self, key: str) -> None:
        self._artifact: UUID = create_progress_artifact(progress=0.0, key=key, description="images explained")  # type: ignore[assignment]
        self._logger = get_run_logger()
        self._send = throttle(_SECONDS, self._update)

    def __call__(self, state: State) -> None:
        """Shows a state, at most once in five seconds unless an image was finished."""
        self._send(state)

    def _update(self, state: State) -> None:
        update_progress_artifact(self._artifact, progress=100 * state.done / state.images)
        self._logger.info("%s", state.line())


class TrainingArtifact:
    """A training's progress as a Prefect artifact, and its epochs as lines of the flow's log."""

    def __init__(self, key: str) -> None:
        self._artifact: UUID = create_progress_artifact(progress=0.0, key=key, description="epochs trained")  # type: ignore[assignment]
        self._logger = get_run_logger()
        self._last = time.monotonic()

    def __call__(self, epoch: Epoch) -> None:
        """Shows how far it is, at most once in five seconds unless an epoch has ended."""
        if epoch.entry is None and time.monotonic() - self._last < _SECONDS:
            return
        self._last = time.monotonic()
        update_progress_artifact(self._artifact, progress=100 * epoch.done / epoch.epochs)
        if epoch.entry is not None:
            self._logger.info("%s", epoch.line())


def classifier_artifact(key: str, trained: Trained) -> None:
    """Where a trained classifier is and how good."""
    create_table_artifact(
        table=[{"": name.replace("_", " "), "value": f"{value:.4g}"} for name, value in trained.card.metrics.items()],
        key=key,
        description=f"`{trained.url}`: {trained.card.arch}, {len(trained.card.classes)} classes, {clock(trained.seconds)}",
    )


def table_artifact(key: str, table: pa.Table) -> None:
    """The metrics, a row a method."""
    head, rows = layout_table(table)
    create_table_artifact(
        table=[dict(zip(head, row, strict=True)) for row in rows],
        key=key,
        description="mean ± half of the 95% interval; * the best; ↓ less is better, ↑ more is better",
    )


def changes_artifact(key: str, again: ReexplainPlan) -> None:
    """What is new, changed, gone and reused since the last run, and why."""
    counts = Counter((change.state, change.why) for change in again.changes)
    create_table_artifact(
        table=[{"images": count, "": state, "why": why} for (state, why), count in counts.most_common()],
        key=key,
        description=again.line(),
    )


def drift_artifact(key: str, drift: Drift, exceeded: list[str], page: str) -> None:
    """What changed between two runs: the means over all images, a row a method."""
    found = {(s.method, s.quantity): s.estimate for s in drift.statistics if s.class_name is None}
    quantities = [quantity for quantity in QUANTITIES if any(found[method, quantity].mean is not None for method in drift.methods)]
    verdict = f"limits exceeded: {'; '.join(exceeded)}" if exceeded else "no limit is exceeded"
    create_table_artifact(
        table=[{"method": method, **{q: _text(found[method, q]) for q in quantities}} for method in drift.methods],
        key=key,
        description=f"{drift.images.same} images compared; {verdict}; the page: `{page}`",
    )


def _text(estimate: Estimate) -> str:
    if estimate.mean is None:
        return "-"
    interval = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.3f} to {estimate.high:.3f})"
    return f"{estimate.mean:.3f}{interval}"


def summary_artifact(key: str, store: RunStore, outcome: RunSummary, page: str) -> None:
    """What was done, at which cost, and where the results are."""
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(outcome.statuses.items())) or "no image"
    lines = [
        f"# {store.metadata()['name']}: {outcome.images} images",
        "",
        f"- maps and records: `{store.url}`",
        f"- report: `{page}`",
        f"- images: {statuses}",
        f"- shards: {outcome.shards}, of which {outcome.already_done} were done before",
        f"- this time: {outcome.passes:,} passes in {clock(outcome.seconds)}",
        f"- cost: {outcome.worker_seconds / 3600:.2f} worker-hours, {outcome.gpu_hours:.2f} GPU-hours",
    ]
    if pictures := [name for name in store.storage.names("report/images") if name.endswith(".jpg")]:
        lines.append(f"- {len(pictures)} pictures, such as `{store.storage.url(f'report/images/{pictures[0]}')}`")
    lines += [f"- shard {item.shard.index} was set aside: `{item.error}`" for item in outcome.failed_shards]
    create_markdown_artifact(markdown="\n".join(lines), key=key)
