"""Worker: explains and commits shards, in a Ray actor or in the driver's process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import torch

from hdm_core.batch_limit import BatchLimit
from hdm_core.device import batch_candidates, default_batch, device_name
from hdm_core.probe import probe
from pipeline.classifiers.load import load_classifier, preprocess_of
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.datasets.batches import read_batches
from pipeline.errors import InputError
from pipeline.execution.reports import ShardReport, WorkerTimings
from pipeline.execution.worker_device import on_device, usable_device
from pipeline.explain.results import ShardResult
from pipeline.explain.shard import explain_shard
from pipeline.explain.stored import MeasuredShard, measure_shard
from pipeline.monitoring import telemetry
from pipeline.plan import Shard
from pipeline.runs import RunStore
from pipeline.runs.leases import Lease, LeaseHolder, LeaseLostError
from pipeline.runs.measured import already_measured
from pipeline.runs.reuse import ReusePlan
from pipeline.runs.reused import read_reused
from pipeline.runs.statuses import worst_statuses
from pipeline.runs.stored_shard import read_shard, write_measured

# A batch size that is faster by less than this factor is not worth a line of `hdm plan`.
_FASTER = 1.05


@dataclass(frozen=True)
class ComputedShard:
    """Results of a shard that are not committed.

    Attributes:
        lease: None with a single driver.
        renewal: renews the lease; it releases the lease when it is closed.
        began: start of the shard, by `time.perf_counter`.
        batch_size: that of a shard with half the batch, which its commit names; else None.
    """

    shard: Shard
    result: ShardResult | MeasuredShard
    lease: Lease | None
    renewal: ExitStack
    began: float
    batch_size: int | None = None


class Worker:
    """One loaded classifier that explains shards of one run, one after another.

    Args:
        weights_digest: of the classifier that the run was planned with.
        on_passes: called with the worker's passes so far, after each batch of passes.
        gpus: GPUs that Ray gave the worker; None for a GPU if this process has one, and the CPU otherwise.
        measuring: measure the maps of committed shards, in place of explaining open ones.

    Raises:
        InputError: if torch cannot use the GPU.
        torch.OutOfMemoryError: if the classifier does not fit into the GPU's free memory; the message says what to do.
    """

    def __init__(
        self,
        config: RunConfig,
        weights_digest: str,
        on_passes: Callable[[int], None] | None = None,
        gpus: float | None = None,
        measuring: bool = False,
    ) -> None:
        torch.set_num_threads(config.compute.threads)
        self._config = config
        self._device = usable_device(config.compute.gpus_per_worker if gpus is None else gpus, given=gpus is not None)
        self._classifier = on_device(load_classifier(config.classifier, config.seed), self._device)
        self._store = RunStore.from_config(config, config.compute.storage_timeout)
        self._batch = config.compute.fixed_batch_size or default_batch(self._device)
        self._weights_digest = weights_digest
        self._measuring = measuring
        self._on_passes = on_passes
        self._passes = 0
        self._leases: set[Lease] = set()  # of the shards that are computed or committed now
        self._limits: dict[str, BatchLimit] = {}
        self._device_name = device_name(self._device)  # read once: after a failure of the device this call would fail, too
        self._reported = 0.0

    def ready(self) -> str:
        """Return the name of the device, once the classifier is loaded.

        Raises:
            InputError: if the classifier is not the one that the run was planned with, because its file was replaced.
        """
        if self._classifier.weights_digest() != self._weights_digest:
            raise InputError(
                "the classifier's weights are no longer those that the run began with; put its file back, or start a run of another name"
            )
        return self._device_name

    def passes(self) -> int | None:
        """Return the passes done since the worker started."""
        return self._passes

    def measure(self, samples: Sequence[Sample]) -> WorkerTimings:
        """Measure the seconds per image of a pass, of a forward pass and of reading."""
        begin = time.perf_counter()
        preprocess = preprocess_of(self._classifier)
        for _ in read_batches(samples, self._config.storage, preprocess, self._batch, timeout=self._config.compute.storage_timeout):
            pass
        seconds_per_read = (time.perf_counter() - begin) / len(samples)
        compute, candidates = self._config.compute, batch_candidates(self._device)
        measured = partial(probe, self._classifier, preprocess.size, precision=compute.fixed_precision, cuda_graphs=compute.cuda_graphs)
        timings = measured([self._batch])
        fastest = self._batch
        if len(candidates) > 1:
            best = measured(candidates)
            if _FASTER * best.seconds_per_pass < timings.seconds_per_pass:
                fastest = best.batch
        return WorkerTimings(
            timings.seconds_per_pass,
            timings.seconds_per_forward,
            timings.seconds_per_float32_forward,
            seconds_per_read,
            self._device_name,
            self._batch,
            fastest,
        )

    def run(
        self, shard: Shard, samples: Sequence[Sample], stale_tag: str | None = None, reuse: ReusePlan | None = None, halved: bool = False
    ) -> ShardReport:
        """Explain a shard and commit it, unless another driver's worker has its lease.

        Args:
            stale_tag: the tag of a stale lease, which may be taken over.
            reuse: which of the shard's explanations come from earlier runs.
            halved: take half the batch, because a worker with all of it was killed for memory.
        """
        computed = self.compute(shard, samples, stale_tag, reuse, halved)
        return self.commit(computed) if isinstance(computed, ComputedShard) else computed

    def compute(
        self, shard: Shard, samples: Sequence[Sample], stale_tag: str | None = None, reuse: ReusePlan | None = None, halved: bool = False
    ) -> ComputedShard | ShardReport:
        """Explain a shard under its lease; the arguments are those of `run`.

        Returns:
            The results, whose lease is renewed until they are committed; or a report if another worker has the shard or has committed it.
        """
        began, lease = time.perf_counter(), None
        with ExitStack() as renewal:
            if not self._config.compute.single_driver:
                lease = Lease(self._store.storage, shard.index, self._config.compute.lease_seconds)
                self._leases.add(lease)
                renewal.callback(self._leases.discard, lease)
                if (held := self._take(lease, stale_tag)) is not None:
                    return self._report(shard, began, held)
                renewal.enter_context(lease.renewing())
                if not self._measuring and self._store.is_done(shard.index):
                    return self._report(shard, began)
            batch = (self._batch + 1) // 2 if halved else self._batch
            limits = {} if halved else self._limits
            result: ShardResult | MeasuredShard
            if self._measuring:
                stored = read_shard(self._store, shard, self._config.methods, conditional=lease is not None)
                if already_measured(stored.measured, self._config.metrics):
                    return self._report(shard, began)
                result = measure_shard(self._classifier, self._config, stored, samples, self._count, batch, limits)
            else:
                reused = None if reuse is None else read_reused(reuse, self._config.storage, self._config.compute.storage_timeout)
                result = explain_shard(self._classifier, self._config, shard, samples, self._count, batch, reused, limits)
            return ComputedShard(shard, result, lease, renewal.pop_all(), began, batch if halved else None)

    def commit(self, computed: ComputedShard) -> ShardReport:
        """Write and commit the results of a shard, and release its lease."""
        shard, result, name = computed.shard, computed.result, self._config.name
        held = None
        with computed.renewal:
            try:
                if isinstance(result, MeasuredShard):
                    committed = write_measured(self._store, result.stored, result.records, self._config, computed.lease)
                else:
                    committed = self._store.write_shard(
                        shard,
                        result.arrays,
                        result.records,
                        result.image_facts,
                        self._config,
                        computed.lease,
                        computed.batch_size,
                        result.seconds.metadata(),
                    )
                    telemetry.count("hdm_explain_seconds", result.seconds.explaining, run=name)
                    telemetry.count("hdm_wait_seconds", result.seconds.waiting, run=name)
                if committed:
                    columns = {key: [getattr(record, key) for record in result.records] for key in ("row", "status")}
                    for status, images in worst_statuses(pa.table(columns)).items():
                        telemetry.count("hdm_images", images, run=name, status=status)
                    telemetry.observe("hdm_shard_seconds", time.perf_counter() - computed.began, run=name)
            except LeaseLostError:
                held = LeaseHolder("another worker", "")
        return self._report(shard, computed.began, held)

    def _report(self, shard: Shard, began: float, held: LeaseHolder | None = None, device_failure: str | None = None) -> ShardReport:
        now = time.perf_counter()
        seconds, self._reported = now - max(began, self._reported), now
        return ShardReport(shard.index, len(shard), seconds, self._device_name, held, self._passes, device_failure=device_failure)

    def _take(self, lease: Lease, stale_tag: str | None) -> LeaseHolder | None:
        return lease.acquire(stale_tag)

    def _count(self, passes: int) -> None:
        self._passes += passes
        telemetry.count("hdm_passes", passes, run=self._config.name)
        if self._on_passes is not None:
            self._on_passes(self._passes)
