"""Open shards of a run: arguments for the workers, bookkeeping of their reports."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hdm_core.metrics.evaluate import metric_forwards
from pipeline.config.schema import EVIDENCE_METHOD
from pipeline.datasets import Sample
from pipeline.execution.reports import ShardReport
from pipeline.monitoring.progress import Progress, ProgressCallback, ProgressTracker
from pipeline.plan import Plan, Shard
from pipeline.runs.leases import StaleLeaseDetector
from pipeline.runs.reuse import ReusePlan

_log = logging.getLogger(__name__)

Arguments = tuple[Shard, Sequence[Sample], str | None, ReusePlan | None, bool]


class ShardTasks:
    """Open shards of a run, for any executor.

    Args:
        todo: the open shards; at least one.
        reuse: which explanations come from earlier runs.
        on_progress: called at once, after every report and at every tick.
        measuring: the shards are committed, and their maps are to be measured.

    Attributes:
        passes: of the workers so far.
        seconds: from the start of the first worker to the end of the last shard.
        worker_seconds: that the workers spent on shards.
        gpu_hours: that they had GPUs during these seconds.
    """

    def __init__(
        self, plan: Plan, todo: Sequence[Shard], reuse: ReusePlan | None, on_progress: ProgressCallback, measuring: bool = False
    ) -> None:
        self.plan, self.todo, self.measuring = plan, todo, measuring
        self.passes, self.seconds, self.worker_seconds, self.gpu_hours = 0, 0.0, 0.0, 0.0
        self._gpus_per_worker = 0.0
        self._halved: set[int] = set()  # shards whose worker was killed for memory
        self._reuse, self._on_progress = reuse, on_progress
        self._stale_leases = StaleLeaseDetector(plan.config.compute.lease_seconds)
        images, open_images = len(plan.samples), sum(len(shard) for shard in todo)
        reused = {} if reuse is None else reuse.count(plan.config.methods, [(shard.start, shard.stop) for shard in todo])
        if measuring:
            passes = open_images * plan.config.ranks * metric_forwards(*plan.size, plan.config.metrics, len(plan.config.methods))
        else:
            passes = self._passes(open_images, reused)
        self._tracker = ProgressTracker(images - open_images, images, passes)
        on_progress(Progress(images - open_images, images, "images", note="starting workers"))

    def _passes(self, images: int, reused: Mapping[str, int]) -> int:
        """Return the passes of explaining open images, of which some maps are reused."""
        passes = sum((images - reused.get(method, 0)) * count for method, count in self.plan.passes_per_image.items())
        return passes + (images - reused.get(EVIDENCE_METHOD, 0)) * self.plan.evidence_passes

    @contextmanager
    def running(self, gpus_per_worker: float) -> Iterator[None]:
        """Measure the seconds of the executor's work, by workers with this share of a GPU."""
        self._gpus_per_worker = gpus_per_worker
        begin = time.monotonic()
        yield
        self.seconds = time.monotonic() - begin

    def arguments(self, shard: Shard) -> Arguments:
        """Return the arguments of `Worker.run` for a shard."""
        reuse = None if self._reuse is None else self._reuse.rows(shard.start, shard.stop)
        return (
            shard,
            self.plan.samples[shard.start : shard.stop],
            self._stale_leases.stale_tag(shard.index),
            reuse,
            shard.index in self._halved,
        )

    def halve(self, shard: Shard) -> bool:
        """Give a shard half the batch from now on; return False if it had it before."""
        if shard.index in self._halved:
            return False
        self._halved.add(shard.index)
        return True

    def on_report(self, report: ShardReport) -> None:
        """Record a worker's report; a shard that another driver holds stays open."""
        if report.held is None:
            self._tracker.finished(report.images)
            self.worker_seconds += report.seconds
            self.gpu_hours += report.seconds * self._gpus_per_worker / 3600
        else:
            self._stale_leases.observe(report.shard, report.held)
            _log.info("shard %d is held by %s; it is tried again later", report.shard, report.held.holder)

    def on_tick(self, passes: int) -> None:
        """Report the progress, after this number of passes by all workers."""
        self.passes = passes
        self._on_progress(self._tracker.progress(passes))
