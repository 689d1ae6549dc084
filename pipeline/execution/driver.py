"""Driver of a run: create it on storage, execute its open shards."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from pipeline.config.schema import ComputeConfig, RunConfig
from pipeline.errors import InputError
from pipeline.execution.queue import FailedShard
from pipeline.execution.tasks import ShardTasks
from pipeline.monitoring.progress import ProgressCallback, no_progress
from pipeline.plan import Plan, Shard, make_plan
from pipeline.runs import RunStore
from pipeline.runs.records import FAILED_STATUSES
from pipeline.runs.reuse import ReusePlan
from pipeline.runs.shard_states import write_failure
from pipeline.runs.statuses import error_text

_log = logging.getLogger(__name__)


@dataclass
class RunSummary:
    """Result of a run.

    Attributes:
        store: of the run.
        images, shards: of the whole run.
        already_done: shards that earlier drivers committed.
        passes: by this driver's workers.
        seconds: from the start of its first worker to the end of the last shard.
        worker_seconds: that its workers spent on shards.
        gpu_hours: that its workers had GPUs during these seconds.
        statuses: status -> images of all committed shards, each under the worst of its methods' statuses.
        errors: (status, error) -> images whose records have it.
        failed_shards: that failed after all attempts; their images have no records.
        report: URL of the page; empty until it is written.
    """

    store: RunStore
    images: int
    shards: int
    already_done: int
    passes: int = 0
    seconds: float = 0.0
    worker_seconds: float = 0.0
    gpu_hours: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed_shards: list[FailedShard] = field(default_factory=list)
    report: str = ""

    @property
    def url(self) -> str:
        """URL of the run's folder."""
        return self.store.url

    @property
    def failed_images(self) -> int:
        """Number of images that are unreadable, failed, or in a failed shard."""
        return sum(self._failed_by_status.values()) + self._without_records

    def execute(self, tasks: ShardTasks) -> None:
        """Run shards on the configured executor, and add up their cost."""
        if tasks.plan.config.compute.executor == "local":
            from pipeline.execution.local_executor import run_locally

            self.failed_shards = run_locally(tasks)
        else:
            from pipeline.execution.ray_executor import run_on_ray  # Ray takes a second to import, and local runs need none

            self.failed_shards = run_on_ray(tasks)
        for failed in self.failed_shards:
            write_failure(self.store, failed.shard.index, failed.error)
        self.passes, self.seconds = tasks.passes, tasks.seconds
        self.worker_seconds, self.gpu_hours = tasks.worker_seconds, tasks.gpu_hours

    def count_statuses(self) -> None:
        """Count the images of all committed shards by status, and their errors."""
        self.statuses = self.store.statuses()
        if any(self.statuses.get(status) for status in FAILED_STATUSES):
            self.errors = self.store.errors()

    def failure_text(self) -> str:
        """Return the number of failed images, with their errors, in one line.

        It is empty if there are none.
        """
        parts = []
        if failed := self._failed_by_status:
            counts = ", ".join(f"{count:,} {status}{error_text(self.errors, status)}" for status, count in failed.items())
            parts.append(f"{counts}; see the records' status and error")
        if self._without_records:
            parts.append(f"{self._without_records:,} in failed shards, which have no records: run it again to try them again")
        images = "1 image" if self.failed_images == 1 else f"{self.failed_images:,} images"
        return f"{images} could not be explained: {'; '.join(parts)}" if parts else ""

    @property
    def _failed_by_status(self) -> dict[str, int]:
        return {status: self.statuses[status] for status in FAILED_STATUSES if self.statuses.get(status)}

    @property
    def _without_records(self) -> int:
        return sum(len(failed.shard) for failed in self.failed_shards)


def plan_run(config: RunConfig) -> tuple[Plan, RunStore]:
    """Plan a run and create it on storage, or find it there.

    Raises:
        InputError: if anything about it cannot work; nothing was started.
    """
    return lay_out(make_plan(config))


def lay_out(plan: Plan, reuse: ReusePlan | None = None) -> tuple[Plan, RunStore]:
    """Create a planned run on storage, or find it there.

    Args:
        reuse: which explanations a new run takes from earlier ones.

    Raises:
        InputError: if the place holds a run of another plan, or the storage cannot be used.
    """
    config = plan.config
    store = RunStore.from_config(config)
    store.create(plan, reuse)
    require_conditional(store, config.compute)
    return plan, RunStore.from_config(config, config.compute.storage_timeout)


def require_conditional(store: RunStore, compute: ComputeConfig) -> None:
    """Refuse a storage on which several drivers could not share a run.

    Raises:
        InputError: unless a single driver is promised.
    """
    if not compute.single_driver and not store.storage.is_conditional():
        raise InputError(
            f"{store.url}: this storage ignores the conditions of writes, so that two drivers could not share the run; "
            "promise with compute.single_driver=true that no second one is started, or use other storage"
        )


def explain_run(plan: Plan, store: RunStore, on_progress: ProgressCallback = no_progress) -> RunSummary:
    """Explain all shards that are not committed yet.

    Args:
        on_progress: called about twice per second.

    Raises:
        InputError: if the machine or the cluster does not fit the configuration.
        RunError: if no worker can start, or the storage is full or unreachable.
    """
    todo = open_shards(plan, store)
    summary = RunSummary(store, len(plan.samples), len(plan.shards), already_done=len(plan.shards) - len(todo))
    if summary.already_done:
        _log.info("%d of %d shards were done before; %d are left", summary.already_done, summary.shards, len(todo))
    if todo:
        tasks = ShardTasks(plan, todo, store.reuse(), on_progress)
        summary.execute(tasks)
    summary.count_statuses()
    return summary


def open_shards(plan: Plan, store: RunStore) -> list[Shard]:
    """List the shards that are not committed yet."""
    done = store.done()
    return [shard for shard in plan.shards if shard.index not in done]
