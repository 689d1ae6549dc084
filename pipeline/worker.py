"""One Ray actor: a model loaded once, a shard in, arrays and records on storage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hdm_core.probe import fastest_batch
from pipeline.classifiers import load_classifier, preprocess_of
from pipeline.config import RunConfig
from pipeline.datasets import Sample
from pipeline.device import device_name, pick_device
from pipeline.plan import Shard
from pipeline.shard import explain_shard
from pipeline.store import RunStore


@dataclass(frozen=True)
class ShardReport:
    """What a worker says of a shard that is committed."""

    shard: int
    images: int
    statuses: dict[str, int]  # status -> images whose worst status it is
    seconds: float
    device: str


# From best to worst: an image counts under the worst of its methods' statuses.
_STATUSES = ("ok", "flat", "nan", "unreadable", "failed")


class Worker:
    """Explains shards of one run, one after another."""

    def __init__(self, config: RunConfig) -> None:
        torch.set_num_threads(config.compute.threads)
        self._config = config
        self._device = pick_device(config.compute.gpus_per_worker)
        self._classifier = load_classifier(config.classifier, config.seed).to(self._device)
        self._store = RunStore.at(config)
        self._batch = config.compute.fixed_batch or fastest_batch(
            self._classifier, preprocess_of(self._classifier).crop, config.compute.fixed_precision
        )
        self._passes = 0

    def ready(self) -> str:
        """The name of the device, once the model is loaded."""
        return device_name(self._device)

    def passes(self) -> int:
        """Passes done since the worker started; answered while a shard is in work."""
        return self._passes

    def run(self, shard: Shard, samples: Sequence[Sample]) -> ShardReport:
        """Explains a shard and commits it."""
        begin = time.perf_counter()
        result = explain_shard(self._classifier, self._config, shard, samples, self._count, self._batch)
        self._store.write_shard(shard, result.arrays, result.records, result.facts, self._config.hash())
        worst: dict[int, str] = {}
        for record in result.records:
            row = record["row"]
            worst[row] = max(worst.get(row, "ok"), record["status"], key=_STATUSES.index)
        return ShardReport(shard.index, len(shard), dict(Counter(worst.values())), time.perf_counter() - begin, self.ready())

    def _count(self, passes: int) -> None:
        self._passes += passes
