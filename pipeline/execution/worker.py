"""One Ray actor: a model loaded once, a shard in, arrays and records on storage."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from hdm_core.device import device_name, pick_device
from hdm_core.probe import fastest_batch, probe
from pipeline.classifiers.load import load_classifier, preprocess_of
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.datasets.batches import read_batches
from pipeline.errors import InputError
from pipeline.explain.shard import explain_shard
from pipeline.monitoring import telemetry
from pipeline.monitoring.log_buffer import Line, LogBuffer
from pipeline.plan import Shard
from pipeline.runs import RunStore
from pipeline.runs.leases import Lease, LeaseHolder, LeaseLostError
from pipeline.runs.records import worst_statuses
from pipeline.runs.reuse import ReusePlan
from pipeline.runs.reused import read_reused


@dataclass(frozen=True)
class ShardReport:
    """What a worker says of a shard.

    Attributes:
        held: the lease of another driver's worker, who is at it; None if the shard is committed.
        passes: of the worker since it started.
        lines: that it has logged since its last shard.
    """

    shard: int
    images: int
    seconds: float
    device: str
    held: LeaseHolder | None = None
    passes: int = 0
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class WorkerTimings:
    """What a worker found its machine to take, seconds an image."""

    seconds_per_pass: float
    seconds_per_forward: float
    seconds_per_read: float
    device: str


class Worker:
    """Explains shards of one run, one after another.

    Args:
        fingerprint: of the classifier that the run was planned with.
    """

    def __init__(self, config: RunConfig, weights_digest: str) -> None:
        self._journal = LogBuffer()
        torch.set_num_threads(config.compute.threads)
        self._config = config
        self._device = pick_device(config.compute.gpus_per_worker)
        self._classifier = load_classifier(config.classifier, config.seed).to(self._device)
        self._store = RunStore.from_config(config, config.compute.storage_timeout)
        self._batch = config.compute.fixed_batch_size or fastest_batch(
            self._classifier, preprocess_of(self._classifier).crop, config.compute.fixed_precision
        )
        self._weights_digest = weights_digest
        self._passes = 0
        self._leaving = False
        self._lease: Lease | None = None
        signal.signal(signal.SIGTERM, lambda number, frame: self._leave())

    def ready(self) -> str:
        """The name of the device, once the model is loaded.

        Raises:
            InputError: if the model is not the one that the run was planned with: its file was replaced in between.
        """
        if self._classifier.weights_digest() != self._weights_digest:
            raise InputError(
                "the classifier's weights are no longer those that the run began with; put its file back, or start a run of another name"
            )
        return device_name(self._device)

    def passes(self) -> int | None:
        """Passes done since the worker started; answered while a shard is in work. None once the worker was asked to go."""
        return None if self._leaving else self._passes

    def measure(self, samples: Sequence[Sample]) -> WorkerTimings:
        """What a pass, a forward pass and reading an image cost this worker: seconds an image."""
        begin = time.perf_counter()
        preprocess = preprocess_of(self._classifier)
        for _ in read_batches(samples, self._config.storage, preprocess, self._batch, timeout=self._config.compute.storage_timeout):
            pass
        reading = (time.perf_counter() - begin) / len(samples)
        found = probe(self._classifier, preprocess.crop, [self._batch], self._config.compute.fixed_precision)
        return WorkerTimings(found.seconds_per_pass, found.seconds_per_forward, reading, device_name(self._device))

    def run(self, shard: Shard, samples: Sequence[Sample], silent: str | None = None, reuse: ReusePlan | None = None) -> ShardReport:
        """Explains a shard and commits it, unless another driver's worker has its lease.

        Args:
            silent: the tag of a lease whose holder is silent, and which may be taken over.
            reuse: which of the shard's explanations earlier runs hold already.
        """
        begin = time.perf_counter()
        held = None
        if self._config.compute.single_driver:
            self._explain(shard, samples, None, reuse)
        else:
            self._lease = lease = Lease(self._store.storage, shard.index, self._config.compute.lease_seconds)
            held = LeaseHolder("nobody", "") if self._leaving else lease.acquire(silent)
            if held is None:
                try:
                    with lease.renewing():
                        if not self._store.is_done(shard.index):
                            self._explain(shard, samples, lease, reuse)
                except LeaseLostError:
                    held = LeaseHolder("another worker", "")
        seconds, device = time.perf_counter() - begin, device_name(self._device)
        return ShardReport(shard.index, len(shard), seconds, device, held, self._passes, self._journal.drain())

    def _explain(self, shard: Shard, samples: Sequence[Sample], lease: Lease | None, reuse: ReusePlan | None) -> None:
        begin, name = time.perf_counter(), self._config.name
        kept = None if reuse is None else read_reused(reuse, self._config.storage, self._config.compute.storage_timeout)
        result = explain_shard(self._classifier, self._config, shard, samples, self._count, self._batch, kept)
        if self._store.write_shard(shard, result.arrays, result.records, result.image_facts, self._config, lease):
            statuses = worst_statuses(pa.table({key: [getattr(record, key) for record in result.records] for key in ("row", "status")}))
            for status, images in statuses.items():
                telemetry.count("hdm_images", images, run=name, status=status)
            telemetry.observe("hdm_shard_seconds", time.perf_counter() - begin, run=name)

    def _leave(self) -> None:
        """On SIGTERM, which machines that are taken away send: others may have the shard at once. The pool hears of it by `passes`.

        Ray's own handler would first finish the shard, for which there is no time. What is still computed here is never
        committed, since the lease is gone. The storage may be slow: it is waited for in a thread.
        """
        self._leaving = True
        if self._lease is not None:
            threading.Thread(target=self._lease.release, daemon=True).start()

    def _count(self, passes: int) -> None:
        self._passes += passes
        telemetry.count("hdm_passes", passes, run=self._config.name)
