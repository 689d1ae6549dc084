"""Executor in the driver's own process: for debuggers, notebooks and tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hdm_core.device import pick_device
from hdm_core.device_errors import is_fatal
from pipeline.errors import HdmError, RunError, device_failure, one_line
from pipeline.execution.queue import FailedShard, ShardQueue, raise_if_fatal
from pipeline.execution.reports import WorkerTimings
from pipeline.execution.tasks import ShardTasks
from pipeline.execution.worker import Worker
from pipeline.plan import Plan

_log = logging.getLogger(__name__)

_TICK = 0.5  # seconds between two progress reports


def run_locally(tasks: ShardTasks) -> list[FailedShard]:
    """Run the shards one after another in this process.

    Leases, commits, retries and bytes are those of a run on Ray. `workers` and `stall_timeout` do not apply.

    Returns:
        The shards that failed after all attempts.

    Raises:
        InputError: if the classifier is not the one that the run was planned with.
        RunError: if the storage is full or unreachable, or the device fails, which no other shard of this process would survive.
    """
    compute = tasks.plan.config.compute
    last_tick = float("-inf")

    def on_passes(passes: int) -> None:
        nonlocal last_tick
        if time.monotonic() - last_tick >= _TICK:
            last_tick = time.monotonic()
            tasks.on_tick(passes)

    queue = ShardQueue(tasks.todo, compute.max_attempts, compute.lease_seconds / 4, tasks.plan.config.name)
    with _process_settings(compute.gpus_per_worker), tasks.running(_gpus(compute.gpus_per_worker)), _device_failure_ends_run():
        worker = Worker(tasks.plan.config, tasks.plan.weights_digest, on_passes, measuring=tasks.measuring)
        _log.info("1 worker in this process on %s", worker.ready())
        tasks.on_tick(0)
        while queue:
            queue.requeue_held()
            if not queue.waiting:  # other drivers' workers hold all that is left
                time.sleep(_TICK)
                continue
            shard = queue.pop()
            try:
                report = worker.run(*tasks.arguments(shard))
            except Exception as error:
                raise_if_fatal(error)
                if is_fatal(error):
                    raise
                cause = f"{type(error).__name__}: {one_line(error)}"
                _log.warning("shard %d: %s", shard.index, cause)
                _log.debug("shard %d: traceback", shard.index, exc_info=True)
                queue.retry_or_fail(shard, cause)
                continue
            if report.held is None:
                queue.done()
            else:
                queue.hold(shard)
            tasks.on_report(report)
            tasks.on_tick(report.passes)
        tasks.on_tick(worker.passes() or 0)
    return queue.failed


def measure_locally(plan: Plan, images: int) -> tuple[list[WorkerTimings], float]:
    """Measure a worker in this process, on the plan's first images.

    Returns:
        Its seconds per image, and the seconds until it was ready.
    """
    begin = time.monotonic()
    with _process_settings(plan.config.compute.gpus_per_worker):
        worker = Worker(plan.config, plan.weights_digest)
        worker.ready()
        start = time.monotonic() - begin
        return [worker.measure(plan.samples[:images])], start


def _gpus(gpus_per_worker: float) -> float:
    return gpus_per_worker if pick_device(gpus_per_worker).type == "cuda" else 0.0


@contextmanager
def _device_failure_ends_run() -> Iterator[None]:
    """Raise a RunError for a fatal error of the device."""
    try:
        yield
    except Exception as error:
        if isinstance(error, HdmError) or not is_fatal(error):
            raise
        raise RunError(device_failure(error)) from None


@contextmanager
def _process_settings(gpus_per_worker: float) -> Iterator[None]:
    """Restore the settings of torch that a worker changes: threads, GPU memory."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if 0 < gpus_per_worker < 1 and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(1.0)
