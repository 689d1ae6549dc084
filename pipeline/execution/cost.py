"""Cost of a run: measured on its own workers, and estimated for other GPUs."""

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
from pipeline.classifiers.load import load_classifier, preprocess_of
from pipeline.errors import InputError
from pipeline.execution.local_executor import measure_locally
from pipeline.execution.reports import WorkerTimings
from pipeline.explain.contrast import fixed_baselines
from pipeline.plan import Plan

_READ = 8  # images that are read to time reading

# Training of ResNet-50 v1.5 in mixed precision on one GPU, images per second, as NVIDIA published it (DeepLearningExamples,
# PyTorch/Classification/ConvNets/resnet50v1.5, container 21.03).
PUBLISHED = {"A100": 2470.0, "V100": 1200.0}
# A forward pass at 224 x 224 is 8.2 GFLOP (two per multiply-add); training is three times that.
_RESNET50_TRAINING_FLOP = 3 * 8.2e9


@dataclass(frozen=True)
class Cost:
    """Cost of a run on this machine or cluster.

    Attributes:
        seconds: from the command's start to the last shard, including `start_seconds` until the workers are ready.
        metric_forwards: those of `forwards` that measure maps; the others are of targets and baselines.
        gpu_hours: GPU -> hours on one such GPU, estimated from published throughput.
        batch, fastest_batch: batch size of the run, and one that is more than 5% faster on the first worker's device, or the same.
    """

    workers: int
    device: str
    passes: int
    forwards: int
    seconds_per_pass: float
    seconds_per_forward: float
    seconds_per_float32_forward: float
    seconds_per_reading: float
    start_seconds: float
    seconds: float
    worker_hours: float
    gpu_hours: dict[str, float]
    batch: int
    fastest_batch: int
    metric_forwards: int = 0


def measure_cost(plan: Plan) -> Cost:
    """Start the run's workers, let all measure a few passes at once, and estimate.

    Raises:
        InputError: if the cluster lacks the resources that the configuration requests, or a worker fails.
    """
    measured, start = measure_locally(plan, _READ) if plan.config.compute.executor == "local" else _measure_on_ray(plan)
    return estimate(plan, measured, start, forward_flop(load_classifier(plan.config.classifier, plan.config.seed), plan.size))


def _measure_on_ray(plan: Plan) -> tuple[list[WorkerTimings], float]:
    """Start the workers and measure on all of them at the same time.

    Returns:
        Timings of every worker, and the seconds until the workers were ready.
    """
    import ray
    from ray.exceptions import RayError

    from pipeline.execution.actors import actor_factory
    from pipeline.execution.cluster import allocate_workers, cluster
    from pipeline.execution.pool import describe

    begin = time.monotonic()
    with cluster(plan.config.compute.ray_address):
        resources = allocate_workers(plan.config.compute, ray.cluster_resources(), len(plan.shards))  # type: ignore[no-untyped-call]
        create_actor = actor_factory(plan, resources)
        workers = [create_actor() for _ in range(resources.workers)]
        try:
            ray.get([worker.ready.remote() for worker in workers])
            start = time.monotonic() - begin
            measured: list[WorkerTimings] = ray.get([worker.measure.remote(plan.samples[:_READ]) for worker in workers])
        except RayError as error:
            raise InputError(f"no worker could measure the run: {describe(error)}") from None
    return measured, start


def estimate(plan: Plan, measured: Sequence[WorkerTimings], start: float, flop: float) -> Cost:
    """Estimate the cost of a plan from the workers' timings.

    Args:
        measured: timings of every worker.
        start: seconds until the workers were ready.
        flop: floating point operations of one forward pass.
    """
    names = ("seconds_per_pass", "seconds_per_forward", "seconds_per_float32_forward", "seconds_per_read")
    per_pass, per_forward, per_float32_forward, per_read = (fmean(getattr(found, name) for found in measured) for name in names)
    passes, alone = (
        sum(count for method, count in plan.passes_per_image.items() if get_method(method).backward == backward)
        for backward in (True, False)
    )
    passes += plan.evidence_passes
    methods, ranks = len(plan.config.methods), plan.config.ranks
    baselines = len(fixed_baselines(plan.config))
    metrics = plan.config.metrics
    measuring = 0 if metrics is None else ranks * metric_forwards(*plan.size, metrics, methods)
    forwards = ranks * (methods + baselines) + measuring
    seconds_per_image = passes * per_pass + alone * per_forward + forwards * per_float32_forward + per_read
    work = busiest([len(shard) for shard in plan.shards], len(measured)) * seconds_per_image
    count = len(plan.samples)
    total_flop = count * (2 * passes + alone + forwards) * flop  # backward to the input alone costs what forward does
    return Cost(
        workers=len(measured),
        device=measured[0].device,
        passes=count * (passes + alone),
        forwards=count * forwards,
        seconds_per_pass=per_pass,
        seconds_per_forward=per_forward,
        seconds_per_float32_forward=per_float32_forward,
        seconds_per_reading=per_read,
        start_seconds=start,
        seconds=start + work,
        worker_hours=count * seconds_per_image / 3600,
        gpu_hours={gpu: total_flop / (rate * _RESNET50_TRAINING_FLOP) / 3600 for gpu, rate in PUBLISHED.items()},
        batch=measured[0].batch,
        fastest_batch=measured[0].fastest_batch,
        metric_forwards=count * measuring,
    )


def busiest(shards: Sequence[int], workers: int) -> int:
    """Return the number of images of the busiest worker.

    Each shard is assumed to go to the first free worker.
    """
    loads = [0] * workers
    for images in shards:
        heapq.heapreplace(loads, loads[0] + images)
    return max(loads)


def forward_flop(classifier: Classifier, size: tuple[int, int]) -> float:
    """Count the floating point operations of a forward pass of one image."""
    with classifier.frozen() as network, torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, preprocess_of(classifier).channels, *size))
    return float(counter.get_total_flops())
