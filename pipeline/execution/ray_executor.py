"""Executor on Ray: a pool of actors on this machine or on a cluster."""

from __future__ import annotations

import logging

import ray
from ray.actor import ActorHandle

from pipeline.execution.actors import actor_factory
from pipeline.execution.cluster import allocate_workers, cluster
from pipeline.execution.pool import COMMITS, Pool
from pipeline.execution.queue import FailedShard
from pipeline.execution.reports import ShardReport
from pipeline.execution.tasks import ShardTasks
from pipeline.execution.worker_actor import WorkerActor
from pipeline.plan import Shard

_log = logging.getLogger(__name__)


def run_on_ray(tasks: ShardTasks) -> list[FailedShard]:
    """Run the shards on workers that are Ray actors.

    Returns:
        The shards that failed after all attempts.

    Raises:
        InputError: if there is no cluster at the address, or a worker needs more than it has.
        RunError: if no worker can start, or the storage is full or unreachable.
    """
    plan = tasks.plan
    compute = plan.config.compute

    def submit(worker: ActorHandle[WorkerActor], shard: Shard) -> ray.ObjectRef[ShardReport | None]:
        ref: ray.ObjectRef[ShardReport | None] = worker.begin.remote(*tasks.arguments(shard))
        return ref

    def await_commit(worker: ActorHandle[WorkerActor], shard: Shard) -> ray.ObjectRef[ShardReport]:
        ref: ray.ObjectRef[ShardReport] = worker.committed.options(concurrency_group=COMMITS).remote(shard.index)
        return ref

    with cluster(compute.ray_address):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        allocation = allocate_workers(compute, resources, len(tasks.todo))
        _log.info("%s", allocation.note)
        pool = Pool(
            actor_factory(plan, allocation, tasks.measuring),
            submit,
            allocation.workers,
            compute.max_attempts,
            tasks.on_report,
            tasks.on_tick,
            stall_timeout=compute.stall_timeout,
            pause=compute.lease_seconds / 4,
            name=plan.config.name,
            await_commit=await_commit,
            halve=tasks.halve,
        )
        with tasks.running(allocation.gpus):
            return pool.run(tasks.todo)
