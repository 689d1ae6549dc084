"""Speed of a GPU by the share of it that each worker gets."""

from __future__ import annotations

import logging
import math
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from hdm_core.device import default_batch
from pipeline.errors import InputError
from pipeline.execution.reports import ShardTiming
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.plan import Plan, Shard
from pipeline.storage.objects import Storage

if TYPE_CHECKING:
    from pipeline.execution.cluster import WorkerResources

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_START_SECONDS, _END_SECONDS = 600.0, 60.0  # for the workers of a share
_CLOSE = 0.95  # a share that reaches this part of the best speed is as good: fewer workers take less memory

_SHARDS = 2  # of each worker: one to load kernels and to fold the network, and one that is timed


@dataclass(frozen=True)
class ShareSpeed:
    """Speed of all workers with one share of a GPU each.

    Attributes:
        workers: that ran at the same time.
        images_per_second: of all workers together; None if they could not be measured.
        error: the reason, in one line.
    """

    share: float
    workers: int
    images_per_second: float | None = None
    error: str | None = None


def parse_shares(text: str) -> list[float]:
    """Parse shares of a GPU such as 1,0.5,0.25.

    Raises:
        InputError: if one of them is not above 0 and at most 1.
    """
    shares = []
    for part in text.split(","):
        try:
            share = float(part)
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise InputError(f"--shares {text}: {part.strip()!r} is no share of a GPU above 0 and at most 1; write for example 1,0.5,0.25")
        shares.append(share)
    return list(dict.fromkeys(shares))


def measure_shares(plan: Plan, shares: Sequence[float], on_progress: ProgressCallback = no_progress) -> list[ShareSpeed]:
    """Let the workers of each share explain the same batch at the same time.

    They use the run's methods and metrics and write to a folder beside the run, which is removed. Every worker explains the batch twice;
    the second time counts, from commit to commit.

    Args:
        on_progress: called with the number of shares measured.

    Raises:
        InputError: if there is no GPU, no cluster, or the run has no workers on Ray.
    """
    compute = plan.config.compute
    if compute.executor == "local":
        raise InputError("compute.executor is local: shares of a GPU are measured with workers on Ray; write compute.executor=ray")
    import ray

    from pipeline.execution.cluster import allocate_workers, cluster

    with cluster(compute.ray_address):
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if not resources.get("GPU"):
            raise InputError("--shares: the cluster has no GPU of which workers could get shares; leave the option out, or add a GPU")
        free = _free_gpus()
        speeds = []
        for number, share in enumerate(shares):
            allocation = allocate_workers(compute.model_copy(update={"workers": "auto", "gpus_per_worker": share}), resources, sys.maxsize)
            note = f"share {share:g}: {allocation.workers} workers"

            def report(fraction: float, number: int = number, note: str = note) -> None:
                on_progress(Progress(number + min(fraction, 0.99), len(shares), "shares", note=note))

            if free < share * allocation.workers - 1e-6:
                error = f"only {free:g} of {resources['GPU']:g} GPUs are free; stop the other work on the cluster"
                speeds.append(ShareSpeed(share, allocation.workers, error=error))
            else:
                speeds.append(_measure(plan, allocation, free, report))
            on_progress(Progress(number + 1, len(shares), "shares", message=_line(speeds[-1])))
    return speeds


def recommend(speeds: Sequence[ShareSpeed]) -> ShareSpeed | None:
    """Return the share with the fewest workers within 5% of the best speed."""
    best = max((speed.images_per_second or 0.0 for speed in speeds), default=0.0)
    close = [speed for speed in speeds if speed.images_per_second is not None and speed.images_per_second >= _CLOSE * best]
    return min(close, key=lambda speed: (speed.workers, -speed.share), default=None)


def _measure(plan: Plan, allocation: WorkerResources, free: float, report: Callable[[float], None]) -> ShareSpeed:
    """Start the workers of a share, measure all of them, and remove what they wrote.

    Args:
        free: GPUs that are free before and, once the workers have ended, after it.
        report: called with the fraction of the passes that are done.
    """
    import ray
    from ray.exceptions import RayError

    from pipeline.execution.actors import actor_factory
    from pipeline.execution.pool import describe

    compute, name = plan.config.compute, f"{plan.config.name}.shares-{uuid.uuid4().hex[:8]}"
    samples = plan.samples[: compute.fixed_batch_size or default_batch(torch.device("cuda"))]
    count = len(samples)
    shards = [Shard(index, index * count, (index + 1) * count) for index in range(_SHARDS)]
    # Nobody else works in these folders, so there is no need for leases.
    update = {"gpus_per_worker": allocation.gpus, "shard_size": count, "single_driver": True}
    config = plan.config.model_copy(update={"compute": compute.model_copy(update=update)})
    scratch = Storage.of(config.output, name, config.storage, compute.storage_timeout)
    workers = []
    try:
        for number in range(allocation.workers):
            worker_plan = replace(plan, config=config.model_copy(update={"name": f"{name}/{number}"}))
            workers.append(actor_factory(worker_plan, allocation)())
        _await(workers, [worker.ready.remote() for worker in workers], lambda _passes: report(0.0), _START_SECONDS)
        passes = max(1, _SHARDS * count * len(workers) * (sum(plan.passes_per_image.values()) + plan.evidence_passes))
        timings: list[ShardTiming] = _await(
            workers, [worker.time_shards.remote(shards, samples) for worker in workers], lambda done: report(done / passes)
        )
    except (RayError, TimeoutError) as error:
        return ShareSpeed(allocation.gpus, allocation.workers, error=describe(error))
    finally:
        for worker in workers:
            ray.kill(worker)
        _await_free_gpus(free)  # the workers have ended and write nothing more
        scratch.remove_all()
    for level, line in dict.fromkeys(line for timing in timings for line in timing.lines):
        _log.log(level, "share %g: %s", allocation.gpus, line)
    return ShareSpeed(allocation.gpus, len(workers), sum(timing.images / timing.seconds for timing in timings))


def _await(workers: Sequence[Any], results: Sequence[Any], on_passes: Callable[[int], None], timeout: float = math.inf) -> Any:
    """Wait for all results; report the passes of the workers meanwhile.

    Raises:
        RayError: the error of the first worker that fails.
        TimeoutError: if they take longer.
    """
    import ray

    from pipeline.execution.pool import PROGRESS

    begin, open_results = time.monotonic(), list(results)
    while open_results:
        ended, open_results = ray.wait(open_results, num_returns=len(open_results), timeout=_POLL_SECONDS)
        ray.get(ended)
        if time.monotonic() - begin > timeout:
            raise TimeoutError(f"its workers did not start within {timeout:g} seconds")
        counts = [worker.passes.options(concurrency_group=PROGRESS).remote() for worker in workers] if timeout == math.inf else []
        answered, _ = ray.wait(counts, num_returns=len(counts), timeout=_POLL_SECONDS) if counts else ([], [])
        on_passes(sum(passes or 0 for passes in ray.get(answered)))
    return ray.get(list(results))


def _free_gpus() -> float:
    import ray

    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return free.get("GPU", 0.0)


def _await_free_gpus(gpus: float) -> None:
    """Wait until the GPUs of workers that were killed are free again."""
    end = time.monotonic() + _END_SECONDS
    while _free_gpus() < gpus - 1e-6 and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)


def _line(speed: ShareSpeed) -> str:
    result = f"not measured: {speed.error}" if speed.images_per_second is None else f"{speed.images_per_second:.3g} images/s"
    return f"share {speed.share:g}, {speed.workers} workers: {result}"
