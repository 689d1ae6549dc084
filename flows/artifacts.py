"""Artifacts of a flow run in Prefect: progress, metrics, URLs of the results."""

from __future__ import annotations

import shlex
from collections import Counter
from uuid import UUID

import pyarrow as pa
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact, update_progress_artifact

from pipeline.audit import Audit
from pipeline.drift import Drift
from pipeline.drift.summary import QUANTITIES
from pipeline.execution.driver import RunSummary
from pipeline.monitoring.progress import Progress, ProgressCallback, clock, throttle
from pipeline.reexplain.plan import ReexplainPlan
from pipeline.tables.aggregate import LEGEND, layout_table, remarks
from pipeline.tables.bootstrap import Estimate
from pipeline.training.run import Trained

_SECONDS = 5.0  # between two updates on Prefect's server
_FINDINGS = 50  # that a table shows


def progress_artifact(key: str, description: str) -> ProgressCallback:
    """Create a progress artifact; return the callback that updates it.

    It is updated, and a line logged, per finished unit; between at most once in 5 seconds.
    """
    artifact: UUID = create_progress_artifact(progress=0.0, key=key, description=description)  # type: ignore[assignment]
    logger = get_run_logger()

    def update(progress: Progress, /) -> None:
        update_progress_artifact(artifact, progress=100 * progress.done / progress.total)
        if progress.is_logged and not progress.is_partial:
            logger.info("%s", progress.line())

    return throttle(_SECONDS, update)


def classifier_artifact(key: str, trained: Trained) -> None:
    """Create a table of a trained classifier's metrics, with its URL."""
    create_table_artifact(
        table=[{"": name.replace("_", " "), "value": f"{value:.4g}"} for name, value in trained.card.metrics.items()],
        key=key,
        description=f"`{trained.url}`: {trained.card.arch}, {len(trained.card.classes)} classes, {clock(trained.seconds)}",
    )


def table_artifact(key: str, table: pa.Table) -> None:
    """Create a table of a run's metrics, one row per method."""
    head, rows = layout_table(table)
    create_table_artifact(
        table=[dict(zip(head, row, strict=True)) for row in rows],
        key=key,
        description=" ".join([f"mean ± half of the 95% interval; {LEGEND}.", *remarks(table)]),
    )


def changes_artifact(key: str, planned: ReexplainPlan) -> None:
    """Create a table of the changes since the last run, with the reasons."""
    counts = Counter((change.state, change.why) for change in planned.changes)
    create_table_artifact(
        table=[{"images": count, "": state, "why": why} for (state, why), count in counts.most_common()],
        key=key,
        description=planned.line(),
    )


def drift_artifact(key: str, drift: Drift, exceeded: list[str], page: str) -> None:
    """Create a table of the drift between two runs, one row per method."""
    estimates = {(s.method, s.quantity): s.estimate for s in drift.statistics if s.class_name is None}
    quantities = [quantity for quantity in QUANTITIES if any(estimates[method, quantity].mean is not None for method in drift.methods)]
    verdict = f"limits exceeded: {'; '.join(exceeded)}" if exceeded else "no limit is exceeded"
    create_table_artifact(
        table=[{"method": method, **{q: _text(estimates[method, q]) for q in quantities}} for method in drift.methods],
        key=key,
        description=f"{drift.images.same} images compared; {verdict}; the page: `{page}`",
    )


def audit_artifact(key: str, audit: Audit, page: str) -> None:
    """Create a table of an audit's findings, the strongest first."""
    verdicts = {True: "confirmed", False: "not confirmed", None: ""}
    create_table_artifact(
        table=[
            {"verdict": verdicts[each.confirmed], "class": each.class_name, "kind": each.kind, "finding": each.text}
            for each in audit.findings[:_FINDINGS]
        ],
        key=key,
        description=" ".join([f"{len(audit.findings)} findings in {audit.images} maps; the page: `{page}`.", *audit.notes]),
    )


def _text(estimate: Estimate) -> str:
    if estimate.mean is None:
        return "-"
    interval = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.3f} to {estimate.high:.3f})"
    return f"{estimate.mean:.3f}{interval}"


def summary_artifact(key: str, summary: RunSummary) -> None:
    """Create a page with a run's statuses, its cost, and the places of its results."""
    store = summary.store
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(summary.statuses.items())) or "no image"
    lines = [
        f"# {store.metadata()['name']}: {summary.images} images",
        "",
        f"- maps and records: `{store.url}`",
        f"- report: `{summary.report}`",
        f"- in the browser: `hdm view {shlex.quote(store.url)}`",
        f"- images: {statuses}",
        f"- shards: {summary.shards}, of which {summary.already_done} were done before",
        f"- this time: {summary.passes:,} passes in {clock(summary.seconds)}",
        f"- cost: {summary.worker_seconds / 3600:.2f} worker-hours, {summary.gpu_hours:.2f} GPU-hours",
    ]
    if images := [name for name in store.storage.names("report/images") if name.endswith(".jpg")]:
        lines.append(f"- {len(images)} pictures, such as `{store.storage.url(f'report/images/{images[0]}')}`")
    lines += [f"- shard {failed.shard.index} failed after all attempts: `{failed.error}`" for failed in summary.failed_shards]
    create_markdown_artifact(markdown="\n".join(lines), key=key)
