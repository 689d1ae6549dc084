"""What a run will take: measured on the workers that it would have, and estimated for GPUs that are not here."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch.utils.flop_counter import FlopCounterMode

from hdm_core import Classifier, get_method
from hdm_core.metrics.evaluate import metric_forwards
from pipeline.classifiers.load import load_classifier
from pipeline.execution.local_executor import measure_locally
from pipeline.execution.worker import WorkerTimings
from pipeline.plan import Plan

_READ = 8  # images that are read to see how long it takes

# Training of ResNet-50 v1.5 in mixed precision on one GPU, images a second, as NVIDIA published it (DeepLearningExamples,
# PyTorch/Classification/ConvNets/resnet50v1.5, container 21.03).
PUBLISHED = {"A100": 2470.0, "V100": 1200.0}
# A forward pass at 224 x 224 is 8.2 GFLOP, two a multiplication and addition; training is three times that.
_RESNET50_TRAINING_FLOP = 3 * 8.2e9


@dataclass(frozen=True)
class Cost:
    """What a run takes on the machine, or the cluster, at hand.

    Attributes:
        seconds: from the command's start to the last shard, with `start_seconds` until the workers are ready.
        gpu_hours: GPU -> hours of one GPU, an estimate from published throughput.
    """

    workers: int
    device: str
    passes: int
    forwards: int
    seconds_per_pass: float
    seconds_per_forward: float
    seconds_per_reading: float
    start_seconds: float
    seconds: float
    worker_hours: float
    gpu_hours: dict[str, float]


def measure_cost(plan: Plan) -> Cost:
    """Starts the workers that the run would have, lets each measure a few passes at the same time, and adds up.

    Raises:
        InputError: if the cluster cannot do what the configuration asks.
    """
    measured, start = measure_locally(plan, _READ) if plan.config.compute.executor == "local" else _measure_on_ray(plan)
    return estimate(plan, measured, start, forward_flop(load_classifier(plan.config.classifier, plan.config.seed), plan.side))


def _measure_on_ray(plan: Plan) -> tuple[list[WorkerTimings], float]:
    """Start the workers and measure on all at the same time; also return the seconds until they were ready."""
    import ray

    from pipeline.execution.actors import actor_factory
    from pipeline.execution.cluster import allocate_workers, cluster

    begin = time.monotonic()
    with cluster(plan.config.compute.ray_address):
        staffing = allocate_workers(plan.config.compute, ray.cluster_resources(), len(plan.shards))  # type: ignore[no-untyped-call]
        spawn = actor_factory(plan, staffing)
        workers = [spawn() for _ in range(staffing.workers)]
        ray.get([worker.ready.remote() for worker in workers])
        start = time.monotonic() - begin
        measured: list[WorkerTimings] = ray.get([worker.measure.remote(plan.samples[:_READ]) for worker in workers])
    return measured, start


def estimate(plan: Plan, measured: Sequence[WorkerTimings], start: float, flop: float) -> Cost:
    """The cost of a plan for workers that measured this, ready after `start` seconds; flop is of one forward pass."""
    a_pass, a_forward, reading = (
        fmean(getattr(found, name) for found in measured) for name in ("seconds_per_pass", "seconds_per_forward", "seconds_per_read")
    )
    passes, alone = (
        sum(count for method, count in plan.passes_per_image.items() if get_method(method).backward == backward)
        for backward in (True, False)
    )
    methods, ranks = len(plan.config.methods), plan.config.ranks
    forwards = ranks * (methods + metric_forwards(plan.side, plan.side, plan.config.metrics.protocol, methods))
    image = passes * a_pass + (alone + forwards) * a_forward + reading
    work = busiest([len(shard) for shard in plan.shards], len(measured)) * image
    count = len(plan.samples)
    total_flop = count * (2 * passes + alone + forwards) * flop  # backward to the input alone costs what forward does
    return Cost(
        workers=len(measured),
        device=measured[0].device,
        passes=count * (passes + alone),
        forwards=count * forwards,
        seconds_per_pass=a_pass,
        seconds_per_forward=a_forward,
        seconds_per_reading=reading,
        start_seconds=start,
        seconds=start + work,
        worker_hours=count * image / 3600,
        gpu_hours={gpu: total_flop / (rate * _RESNET50_TRAINING_FLOP) / 3600 for gpu, rate in PUBLISHED.items()},
    )


def busiest(shards: Sequence[int], workers: int) -> int:
    """Images of the worker that ends last when every shard goes to the worker that is free first."""
    loads = [0] * workers
    for images in shards:
        heapq.heapreplace(loads, loads[0] + images)
    return max(loads)


def forward_flop(classifier: Classifier, side: int) -> float:
    """Floating point operations of a forward pass of one image."""
    with classifier.frozen() as network, torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, side, side))
    return float(counter.get_total_flops())
