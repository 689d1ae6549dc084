"""Simulation of large runs: workers, preemptions and requests, event by event."""

from __future__ import annotations

import bisect
import heapq
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_BLOCK = 65536  # random numbers that are drawn together


@dataclass(frozen=True)
class Model:
    """Durations and counts of a run; docs/scale.md says which were measured.

    Attributes:
        shard_spread: standard deviation of the logarithm of a shard's seconds.
        start_seconds: median from a worker's request to its first shard, with a spread of its own.
        gap_seconds: between two shards of a worker.
        request_seconds: median of a request to the storage; its tail is lognormal.
        objects: of a shard, which are written by 16 requests at a time.
        lease_seconds: duration of a lease, renewed four times in it by one write and two reads.
        preemptions_per_hour: of one GPU, whose workers are all lost and start again elsewhere.
        gpu_hour_price, write_price, read_price: in dollars, per hour and per request.
    """

    image_seconds: float = 0.56
    shard_size: int = 256
    workers_per_gpu: int = 4
    shard_spread: float = 0.1
    start_seconds: float = 60.0
    start_spread: float = 0.3
    gap_seconds: float = 0.003
    request_seconds: float = 0.013
    request_spread: float = 1.0
    objects: int = 7
    lease_seconds: float = 60.0
    preemptions_per_hour: float = 0.05
    gpu_hour_price: float = 2.0
    write_price: float = 5e-6
    read_price: float = 4e-7


@dataclass(frozen=True)
class Simulated:
    """Result of one simulated run.

    Attributes:
        seconds: from the request of the workers to the last commit.
        busy: share of the workers' time, from their request on, that went into committed shards.
        tail: share of the workers' time after no shard was left to take.
        lost: share of the computed time that preemptions lost.
        dollars: of GPUs, for the whole time, and of requests.
    """

    images: int
    gpus: int
    seconds: float
    gpu_hours: float
    dollars: float
    writes: int
    reads: int
    preemptions: int
    busy: float
    tail: float
    lost: float

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


class _Draws:
    """Random numbers of one distribution, drawn in blocks."""

    def __init__(self, random: np.random.Generator, median: float, spread: float) -> None:
        self._random, self._median, self._spread = random, median, spread
        self._left: list[float] = []

    def __call__(self) -> float:
        if not self._left:
            self._left = (self._median * np.exp(self._spread * self._random.standard_normal(_BLOCK))).tolist()
        return self._left.pop()


class _Preemptions:
    """Times at which one GPU is taken away, a Poisson process."""

    def __init__(self, random: np.random.Generator, per_hour: float) -> None:
        self._random, self._mean = random, 3600 / per_hour if per_hour else math.inf
        self._times: list[float] = []

    def after(self, begin: float) -> float:
        """Return the first time after `begin`, in seconds; infinite if there is none."""
        if self._mean == math.inf:
            return math.inf
        while not self._times or self._times[-1] <= begin:
            self._times.append((self._times[-1] if self._times else 0.0) + float(self._random.exponential(self._mean)))
        return self._times[bisect.bisect_right(self._times, begin)]


def simulate(images: int, gpus: int, model: Model, seed: int = 0) -> Simulated:
    """Simulate a run until its last shard is committed.

    An event is the end of a worker's shard or the end of its start. A preempted GPU loses what its workers compute at that moment, and
    these shards wait for other workers. A commit runs beside the next shard: it delays the end of the run alone.
    """
    random = np.random.default_rng(seed)
    workers = gpus * model.workers_per_gpu
    shards, rest = divmod(images, model.shard_size)
    sizes = [rest] if rest else []  # the last shard is smaller
    start, request = (
        _Draws(random, model.start_seconds, model.start_spread),
        _Draws(random, model.request_seconds, model.request_spread),
    )
    shard_seconds = _Draws(random, math.exp(-(model.shard_spread**2) / 2), model.shard_spread)  # of mean 1
    preempted = [_Preemptions(random, model.preemptions_per_hour) for _ in range(gpus)]
    events = [(start(), worker, 0, 0.0) for worker in range(workers)]
    heapq.heapify(events)
    end = last_taken = worked = lost = held = 0.0
    committed = preemptions = 0
    while events:
        now, worker, size, seconds = heapq.heappop(events)
        if size and (at := preempted[worker // model.workers_per_gpu].after(now - seconds)) < now:  # while it computed this shard
            lost += at - (now - seconds)
            sizes.append(size)
            preemptions += worker % model.workers_per_gpu == 0  # its GPU's other workers lose their shards, too
            heapq.heappush(events, (max(now, at + start()), worker, 0, 0.0))
            continue
        if size:
            worked += seconds
            committed += 1
            end = max(end, now + math.ceil(model.objects / 16) * request() + 2 * request())
        if shards or sizes:
            had_sizes = bool(sizes)
            size = sizes.pop() if sizes else model.shard_size
            shards -= not had_sizes
            seconds = size * model.image_seconds * shard_seconds()
            held += seconds
            last_taken = max(last_taken, now)
            heapq.heappush(events, (now + model.gap_seconds + seconds, worker, size, seconds))
    renewals = held * 4 / model.lease_seconds
    writes = int(committed * (model.objects + 1 + 4) + renewals)
    reads = int(committed * 7 + 2 * renewals)
    gpu_hours = gpus * end / 3600
    return Simulated(
        images,
        gpus,
        end,
        gpu_hours,
        gpu_hours * model.gpu_hour_price + writes * model.write_price + reads * model.read_price,
        writes,
        reads,
        preemptions,
        worked / (workers * end),
        (end - last_taken) / end,
        lost / (worked + lost) if worked else 0.0,
    )
