"""The run from plan to commits: what the command line and the flows both drive."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle

from pipeline.config.schema import RunConfig
from pipeline.errors import InputError
from pipeline.execution.actors import actor_factory
from pipeline.execution.cluster import WorkerResources, allocate_workers, cluster
from pipeline.execution.pool import Pool
from pipeline.execution.queue import FailedShard
from pipeline.execution.worker import ShardReport, Worker
from pipeline.monitoring.progress import ProgressTracker, Show
from pipeline.plan import Plan, Shard, make_plan
from pipeline.runs import RunStore
from pipeline.runs.leases import StaleLeaseDetector
from pipeline.runs.reuse import ReusePlan

_log = logging.getLogger(__name__)


@dataclass
class RunSummary:
    """What became of a run's images.

    Attributes:
        resumed: shards that an earlier driver had done.
        statuses: how many images ended how in all committed shards, under the worst of their methods' statuses.
        set_aside: shards that failed as often as they may.
        passes, seconds: of this driver.
        worker_seconds: that its workers spent on shards, and gpu_hours of them.
    """

    url: str
    images: int
    shards: int
    already_done: int
    passes: int = 0
    seconds: float = 0.0
    worker_seconds: float = 0.0
    gpu_hours: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    failed_shards: list[FailedShard] = field(default_factory=list)

    @property
    def failed_images(self) -> int:
        """Images that ended without any use: unreadable, failed, or in a shard that was set aside."""
        bad = sum(self.statuses.get(status, 0) for status in ("unreadable", "failed"))
        return bad + sum(len(item.shard) for item in self.failed_shards)


def plan_run(config: RunConfig) -> tuple[Plan, RunStore]:
    """Plans a run and lays it out on storage, or finds it there.

    Raises:
        InputError: if anything about it cannot work; nothing was started.
    """
    return lay_out(make_plan(config))


def lay_out(plan: Plan, reuse: ReusePlan | None = None) -> tuple[Plan, RunStore]:
    """Lays a planned run out on storage, or finds it there.

    Args:
        reuse: what a new run takes from earlier ones.

    Raises:
        InputError: if it is there of another plan, or the storage cannot be used.
    """
    config = plan.config
    store = RunStore.from_config(config)
    store.create(plan, reuse)
    if not config.compute.single_driver and not store.storage.is_conditional():
        raise InputError(
            f"{store.url}: this storage ignores the conditions of writes, so that two drivers could not share the run; "
            "promise with compute.single_driver=true that no second one is started, or use other storage"
        )
    return plan, RunStore.from_config(config, config.compute.storage_timeout)


def explain_run(plan: Plan, store: RunStore, show: Show) -> RunSummary:
    """Explains all shards that are not committed yet.

    Args:
        show: told how far the run is, about twice a second.

    Raises:
        InputError: if the cluster cannot do what the configuration asks.
        RunError: if no worker can start.
    """
    todo = open_shards(plan, store)
    outcome = RunSummary(store.url, len(plan.samples), len(plan.shards), already_done=len(plan.shards) - len(todo))
    if outcome.already_done:
        _log.info("%d of %d shards were done before; %d are left", outcome.already_done, outcome.shards, len(todo))
    if todo:
        with cluster(plan.config.compute.ray_address):
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            staffing = allocate_workers(plan.config.compute, resources, len(todo))
            _log.info("%s", staffing.note)
            _work(plan, store, todo, staffing, outcome, show)
    outcome.statuses = store.statuses()
    return outcome


def open_shards(plan: Plan, store: RunStore) -> list[Shard]:
    """The shards that are not committed yet."""
    done = store.done()
    return [shard for shard in plan.shards if shard.index not in done]


def _work(plan: Plan, store: RunStore, todo: list[Shard], staffing: WorkerResources, outcome: RunSummary, show: Show) -> None:
    images, open_images, reuse = len(plan.samples), sum(len(shard) for shard in todo), store.reuse()
    kept = {} if reuse is None else reuse.count(plan.config.methods, [(shard.start, shard.stop) for shard in todo])
    passes = sum((open_images - kept.get(method, 0)) * each for method, each in plan.passes_per_image.items())
    watch = ProgressTracker(images - open_images, images, passes)

    compute = plan.config.compute
    silences = StaleLeaseDetector(compute.lease_seconds)

    def submit(worker: ActorHandle[Worker], shard: Shard) -> ray.ObjectRef[ShardReport]:
        samples = plan.samples[shard.start : shard.stop]
        taken = None if reuse is None else reuse.rows(shard.start, shard.stop)
        ref: ray.ObjectRef[ShardReport] = worker.run.remote(shard, samples, silences.stale_tag(shard.index), taken)
        return ref

    def on_done(report: ShardReport) -> None:
        if report.held is None:
            watch.finished(report.images)
            outcome.worker_seconds += report.seconds
            outcome.gpu_hours += report.seconds * staffing.gpus / 3600
        else:
            silences.observe(report.shard, report.held)
            _log.info("shard %d is in the hands of %s; asking again", report.shard, report.held.holder)

    def on_tick(passes: int) -> None:
        outcome.passes = passes
        show(watch.state(passes))

    started = time.monotonic()
    pool = Pool(
        actor_factory(plan, staffing),
        submit,
        staffing.workers,
        compute.max_attempts,
        on_done,
        on_tick,
        stall_timeout=compute.stall_timeout,
        pause=compute.lease_seconds / 4,
        name=plan.config.name,
    )
    outcome.failed_shards = pool.run(todo)
    outcome.seconds = time.monotonic() - started
