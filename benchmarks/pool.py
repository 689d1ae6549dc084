"""Benchmark of the worker pool: a real Ray and a real pool with simulated work."""

from __future__ import annotations

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any, Literal

import ray
from ray.actor import ActorHandle

from benchmarks.sleep_worker import SimulatedReport, SleepWorker, resident_bytes
from benchmarks.write_worker import WriteWorker
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.execution.cluster import cluster
from pipeline.execution.pool import PROGRESS, Pool
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore

Work = Literal["sleep", "nothing", "write"]


@dataclass(frozen=True)
class PoolBenchmark:
    """Result: utilisation of the workers and load of the driver.

    Attributes:
        start_seconds: seconds until all workers had started; part of no other number.
        seconds: seconds from the start of the first shard to the end of the last.
        rate: images per second.
        ideal: images per second if every worker worked all the time; None without a sleep.
        busy: share of the workers' time that was work.
        tail: share of the workers' time that was idle at the end because no shard was left.
        gap_ms: median of the time between the end of a worker's shard and the start of its next one.
        driver: CPU time of the driver's process as a share of one core.
        driver_mib, worker_mib: memory at the start, in the middle and at the end.
    """

    work: Work
    workers: int
    images: int
    shard_size: int
    image_seconds: float
    start_seconds: float
    seconds: float
    rate: float
    ideal: float | None
    busy: float
    tail: float
    gap_ms: float
    driver: float
    driver_mib: tuple[float, ...]
    worker_mib: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


@dataclass
class _PrestartedWorkers:
    """Workers started before the pool runs, so that Python's start is not measured."""

    actor: Any
    arguments: tuple[Any, ...]
    workers: int
    idle: list[ActorHandle[Any]] = field(default_factory=list)

    def start(self) -> None:
        """Start the workers and wait until all are ready."""
        remote = ray.remote(concurrency_groups={PROGRESS: 1})(self.actor)  # type: ignore[call-overload]
        options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        self.idle = [remote.options(**options).remote(*self.arguments) for _ in range(self.workers)]
        ray.get([worker.ready.remote() for worker in self.idle])


def bench_sleep(workers: int, shards: int, shard_size: int, image_seconds: float) -> PoolBenchmark:
    """Measure workers that sleep `image_seconds` per image, or do nothing for 0."""
    prestarted = _PrestartedWorkers(SleepWorker, (image_seconds,), workers)
    work: Work = "sleep" if image_seconds else "nothing"
    return _measure(work, prestarted, _make_shards(shards * shard_size, shard_size), shard_size, image_seconds, _submit_numbers)


def bench_write(output: str, workers: int, images: int, shard_size: int, side: int) -> PoolBenchmark:
    """Measure workers that write synthetic shards into a new run below `output`.

    The run is removed afterwards.

    Raises:
        InputError: if the output cannot be written.
    """
    config = _configuration(output, shard_size)
    samples = [Sample(f"{row:07d}.jpg", f"/photographs/{row:07d}.jpg") for row in range(images)]
    shards = _make_shards(images, shard_size)
    store = RunStore.from_config(config)
    try:
        store.create(Plan(config, samples, shards, (side, side), "0" * 64, dict.fromkeys(config.methods, 1)))

        def submit(worker: ActorHandle[Any], shard: Shard) -> ray.ObjectRef[Any]:
            ref: ray.ObjectRef[Any] = worker.run.remote(shard, samples[shard.start : shard.stop])
            return ref

        return _measure("write", _PrestartedWorkers(WriteWorker, (config, side), workers), shards, shard_size, 0.0, submit)
    finally:
        store.storage.fs.rm(store.storage.root, recursive=True)


def _configuration(output: str, shard_size: int) -> RunConfig:
    return load_config(
        {
            "name": f"bench-pool-{uuid.uuid4().hex[:8]}",
            "dataset": {"kind": "folder", "root": "/photographs"},
            "classifier": {"arch": "mobilenet_v2"},
            "methods": ["grad_cam"],
            "compute": {"shard_size": shard_size},
            "output": output,
        }
    )


def _submit_numbers(worker: ActorHandle[Any], shard: Shard) -> ray.ObjectRef[Any]:
    ref: ray.ObjectRef[Any] = worker.run.remote(shard.index, len(shard))
    return ref


def _make_shards(images: int, size: int) -> list[Shard]:
    return [Shard(index, start, min(start + size, images)) for index, start in enumerate(range(0, images, size))]


def _measure(
    work: Work,
    prestarted: _PrestartedWorkers,
    shards: Sequence[Shard],
    shard_size: int,
    image_seconds: float,
    submit: Callable[[ActorHandle[Any], Shard], ray.ObjectRef[Any]],
) -> PoolBenchmark:
    """Run the pool over the shards, on a Ray with one logical CPU per worker."""
    # Ray expects one process per real core, and would warn at length on standard output that there are more.
    os.environ["RAY_worker_maximum_startup_concurrency"] = str(prestarted.workers // 3 + 1)  # noqa: SIM112 - Ray's own spelling
    reports: list[SimulatedReport] = []
    driver_bytes: list[int] = []

    def on_done(report: Any) -> None:
        reports.append(report)
        driver_bytes.append(resident_bytes())

    with cluster(None, cpus=prestarted.workers):
        start = time.monotonic()
        prestarted.start()
        ready, cpu_seconds = time.monotonic(), time.process_time()
        failed = Pool(prestarted.idle.pop, submit, prestarted.workers, 1, on_done, lambda passes: None).run(shards)
        seconds, cpu_seconds = time.monotonic() - ready, time.process_time() - cpu_seconds
    if failed:
        raise RuntimeError(f"shard {failed[0].shard.index}: {failed[0].error}")

    by_worker: dict[int, list[SimulatedReport]] = defaultdict(list)
    for report in sorted(reports, key=lambda report: report.started):
        by_worker[report.process_id].append(report)
    end = max(map(_end, reports))
    span = end - min(report.started for report in reports)
    gaps = [later.started - _end(earlier) for shards_done in by_worker.values() for earlier, later in pairwise(shards_done)]
    images = sum(report.images for report in reports)
    size = max(1, min(prestarted.workers, len(reports) // 3))
    middle = len(reports) // 2
    samples = [reports[:size], reports[middle : middle + size], reports[-size:]]
    return PoolBenchmark(
        work=work,
        workers=prestarted.workers,
        images=images,
        shard_size=shard_size,
        image_seconds=image_seconds,
        start_seconds=ready - start,
        seconds=span,
        rate=images / span,
        ideal=prestarted.workers / image_seconds if image_seconds else None,
        busy=sum(report.seconds for report in reports) / (prestarted.workers * span),
        tail=sum(end - _end(shards_done[-1]) for shards_done in by_worker.values()) / (prestarted.workers * span),
        gap_ms=1e3 * median(gaps) if gaps else 0.0,
        driver=cpu_seconds / seconds,
        driver_mib=tuple(driver_bytes[index] / 2**20 for index in (0, len(driver_bytes) // 2, -1)),
        worker_mib=tuple(fmean(report.memory_bytes for report in sample) / 2**20 for sample in samples),
    )


def _end(report: SimulatedReport) -> float:
    return report.started + report.seconds
