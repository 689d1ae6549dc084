"""Does the pool keep its workers busy, and how much does its driver bear? Real Ray, real pool, pretended work."""

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

from benchmarks.sleep_worker import SimulatedReport, SleepWorker, memory
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
    """How many workers did what, and how it went.

    Attributes:
        start_seconds: until all workers were there; counted in nothing else.
        seconds: from the begin of the first shard to the end of the last.
        ideal: images a second if every worker worked all the time.
        busy: the share of those seconds that the workers worked.
        tail: the share that they stood idle at the end because there was no shard left.
        gap_ms: between the end of a worker's shard and the begin of its next one, the median.
        driver: the share of one processor that the driver's process took.
        driver_mib, worker_mib: memory at the begin, in the middle and at the end.
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
        """What the command prints."""
        return asdict(self)


@dataclass
class _PrestartedWorkers:
    """Workers that are there before the pool asks for them: how long Python takes to start is no matter of the pool's."""

    actor: Any
    arguments: tuple[Any, ...]
    workers: int
    waiting: list[ActorHandle[Any]] = field(default_factory=list)

    def gather(self) -> None:
        remote = ray.remote(concurrency_groups={PROGRESS: 1})(self.actor)  # type: ignore[call-overload]
        options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        self.waiting = [remote.options(**options).remote(*self.arguments) for _ in range(self.workers)]
        ray.get([worker.ready.remote() for worker in self.waiting])


def bench_sleep(workers: int, shards: int, shard_size: int, image_seconds: float) -> PoolBenchmark:
    """Workers that sleep for as long as images take; no time if `image_seconds` is 0."""
    crew = _PrestartedWorkers(SleepWorker, (image_seconds,), workers)
    work: Work = "sleep" if image_seconds else "nothing"
    return _measure(work, crew, _cut(shards * shard_size, shard_size), shard_size, image_seconds, _submit_numbers)


def bench_write(output: str, workers: int, images: int, shard_size: int, side: int) -> PoolBenchmark:
    """Workers that write made-up shards into a new run below `output`, which is removed afterwards.

    Raises:
        InputError: if the output cannot be written.
    """
    config = _configuration(output, shard_size)
    samples = [Sample(f"{row:07d}.jpg", f"/photographs/{row:07d}.jpg") for row in range(images)]
    shards = _cut(images, shard_size)
    store = RunStore.from_config(config)
    try:
        store.create(Plan(config, samples, shards, side, "0" * 64, dict.fromkeys(config.methods, 1)))

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


def _cut(images: int, size: int) -> list[Shard]:
    return [Shard(index, start, min(start + size, images)) for index, start in enumerate(range(0, images, size))]


def _measure(
    work: Work,
    crew: _PrestartedWorkers,
    shards: Sequence[Shard],
    shard_size: int,
    image_seconds: float,
    submit: Callable[[ActorHandle[Any], Shard], ray.ObjectRef[Any]],
) -> PoolBenchmark:
    """Lets the pool work through shards, on a Ray with a processor in its books for every worker."""
    # Ray expects as many processes as there are real processors, and would say at length, on standard output, that there are more.
    os.environ["RAY_worker_maximum_startup_concurrency"] = str(crew.workers // 3 + 1)  # noqa: SIM112 - Ray's own spelling
    naps: list[SimulatedReport] = []
    held: list[int] = []

    def on_done(nap: Any) -> None:
        naps.append(nap)
        held.append(memory())

    with cluster(None, cpus=crew.workers):
        start = time.monotonic()
        crew.gather()
        ready, processor = time.monotonic(), time.process_time()
        failed = Pool(crew.waiting.pop, submit, crew.workers, 1, on_done, lambda passes: None).run(shards)
        seconds, processor = time.monotonic() - ready, time.process_time() - processor
    if failed:
        raise RuntimeError(f"shard {failed[0].shard.index}: {failed[0].error}")

    by_worker: dict[int, list[SimulatedReport]] = defaultdict(list)
    for nap in sorted(naps, key=lambda nap: nap.began):
        by_worker[nap.worker].append(nap)
    end = max(map(_end, naps))
    span = end - min(nap.began for nap in naps)
    gaps = [later.began - _end(earlier) for mine in by_worker.values() for earlier, later in pairwise(mine)]
    images = sum(nap.images for nap in naps)
    few = max(1, min(crew.workers, len(naps) // 3))
    middle = len(naps) // 2
    some = [naps[:few], naps[middle : middle + few], naps[-few:]]
    return PoolBenchmark(
        work=work,
        workers=crew.workers,
        images=images,
        shard_size=shard_size,
        image_seconds=image_seconds,
        start_seconds=ready - start,
        seconds=span,
        rate=images / span,
        ideal=crew.workers / image_seconds if image_seconds else None,
        busy=sum(nap.seconds for nap in naps) / (crew.workers * span),
        tail=sum(end - _end(mine[-1]) for mine in by_worker.values()) / (crew.workers * span),
        gap_ms=1e3 * median(gaps) if gaps else 0.0,
        driver=processor / seconds,
        driver_mib=tuple(held[place] / 2**20 for place in (0, len(held) // 2, -1)),
        worker_mib=tuple(fmean(nap.memory for nap in each) / 2**20 for each in some),
    )


def _end(nap: SimulatedReport) -> float:
    return nap.began + nap.seconds
