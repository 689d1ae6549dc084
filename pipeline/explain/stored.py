"""Measurement of the stored maps of one shard, without explaining it again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hdm_core import METRICS, Classifier, MetricSettings
from hdm_core.batch_limit import BatchLimit
from hdm_core.device import default_batch
from hdm_core.metrics.evaluate import metric_forwards
from pipeline.classifiers.load import own_preparation, preprocess_of
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.datasets.batches import LoadedSample, UnreadableSample, read_batches
from pipeline.errors import RunError
from pipeline.explain.batch import Batch
from pipeline.explain.contrast import MeasuredBaselines, add_contrast
from pipeline.explain.isolate import ItemFailure, isolated, warnings_as_messages
from pipeline.explain.measure import measure
from pipeline.explain.method import PassCallback
from pipeline.runs.measured import explicit, same_numbers
from pipeline.runs.records import Record
from pipeline.runs.stored_shard import StoredShard

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredShard:
    """Numbers of a stored shard that are not committed: its records, in their order."""

    stored: StoredShard
    records: list[Record]


def measure_shard(
    classifier: Classifier,
    config: RunConfig,
    stored: StoredShard,
    samples: Sequence[Sample],
    progress: PassCallback | None = None,
    batch_size: int | None = None,
    limits: dict[str, BatchLimit] | None = None,
) -> MeasuredShard:
    """Measure a shard's stored maps, in the batches of a run that measures at once.

    On the CPU the numbers therefore have the bits of a run that was measured from the start. Numbers that the shard has with the same
    baselines and protocol are kept. A map that cannot be measured keeps its status and has no numbers.

    Args:
        config: of the run, with the metrics to measure.
        samples: of the shard.
        progress: called with the number of forward passes just done.
        batch_size, limits: as for `explain_shard`.

    Raises:
        RunError: if an image that has a map is gone, or no longer the one that was explained.
    """
    if config.metrics is None:
        raise ValueError("config.metrics is none: nothing is to be measured")
    preprocess = preprocess_of(classifier)
    size = batch_size or config.compute.fixed_batch_size or default_batch(classifier.device)
    todo, kept = _open_metrics(explicit(config.metrics), stored.measured)
    records = {(each.row, each.method, each.rank): _with_kept(each, kept) for each in stored.records}
    known_limits = {} if limits is None else limits
    measurement = _Measurement(
        classifier, config, stored, todo, records, lambda work: known_limits.setdefault(work, BatchLimit(size, work)), progress
    )
    prepare = own_preparation(classifier)
    batches = read_batches(
        samples,
        config.storage,
        preprocess,
        max(1, size // config.ranks),
        timeout=config.compute.storage_timeout,
        prepare=prepare,
        pin_memory=prepare is None and classifier.device.type == "cuda",
    )
    with warnings_as_messages(), closing(batches):
        for read in batches:
            for item in read.items:
                measurement.check_unchanged(item, samples)
            loaded = read.loaded

            def measure_loaded(part: Sequence[LoadedSample], whole: Tensor | None = read.images, count: int = len(loaded)) -> None:
                measurement.measure(Batch.from_loaded(classifier, stored.shard, samples, part, whole if len(part) == count else None))

            for outcome in isolated(loaded, measure_loaded):
                if isinstance(outcome, ItemFailure):
                    _log.warning("%s could not be measured: %s", samples[outcome.item.row].image_id, outcome.error)
    return MeasuredShard(stored, list(records.values()))


@dataclass(frozen=True)
class _Measurement:
    """Measurement of a shard's maps, batch by batch.

    Attributes:
        config: with the metrics that the shard will have.
        todo: settings of the metrics that it lacks; None if it lacks none.
        records: (row, method, rank) -> record, replaced as maps are measured.
        limit_of: work -> limit of the images that go through the network at once.
    """

    classifier: Classifier
    config: RunConfig
    stored: StoredShard
    todo: MetricSettings | None
    records: dict[tuple[int, str, int], Record]
    limit_of: Callable[[str], BatchLimit]
    progress: PassCallback | None

    def measure(self, batch: Batch) -> None:
        """Measure the maps of a batch, and score the first baseline for their classes."""
        explained = [(self.records[key], self._map(*key)) for key in self._keys(batch.rows) if self.records[key].status == "ok"]
        todo = self.todo
        if todo is not None:
            for measured in isolated(explained, lambda pairs: measure(self.classifier, batch, pairs, todo, self.limit_of("metrics"))):
                if isinstance(measured, ItemFailure):
                    record, _ = measured.item
                    _log.warning("%s: %s could not be measured: %s", record.image_id, record.method, measured.error)
                else:
                    for record in measured:
                        self._merge(record)
            self._count(batch, [record for record, _ in explained], todo)
        self._score_baseline(batch)

    def check_unchanged(self, item: LoadedSample | UnreadableSample, samples: Sequence[Sample]) -> None:
        """Refuse an image that has a map and is gone or has changed."""
        row = self.stored.shard.start + item.row
        before = self.stored.checksums.get(row, (None, None))
        if not any(self.records[key].status == "ok" for key in self._keys([row])):
            return
        name = samples[item.row].path
        if isinstance(item, UnreadableSample):
            raise RunError(f"{name} was explained and cannot be read any more ({item.error}): put it back")
        for what, now, then in zip(("it", "its ground truth"), _checksums(item), before, strict=True):
            if now != then:
                raise RunError(f"{name}: {what} has other contents than when it was explained: put the file back, or start a new run")

    def _keys(self, rows: Sequence[int]) -> list[tuple[int, str, int]]:
        """Return the keys of the rows' records, in the order in which a run explains them."""
        keys = ((row, method, rank) for method in self.config.methods for row in rows for rank in range(self.config.ranks))
        return [key for key in keys if key in self.records]

    def _map(self, row: int, method: str, rank: int) -> Tensor:
        maps = self.stored.maps[method]
        index = (row - self.stored.shard.start, *((rank,) if self.config.ranks > 1 else ()))
        return torch.from_numpy(maps[index])

    def _merge(self, new: Record) -> None:
        """Add new numbers to those that are kept."""
        key = new.row, new.method, new.rank
        old = self.records[key]
        self.records[key] = replace(
            new,
            metrics={**old.metrics, **new.metrics},
            measures={name: {**old.measures.get(name, {}), **values} for name, values in new.measures.items()},
            deletion=new.deletion or old.deletion,
            insertion=new.insertion or old.insertion,
        )

    def _score_baseline(self, batch: Batch) -> None:
        """Add what the classes keep on the first baseline of the metrics."""
        keys = [key for key in self._keys(batch.rows) if self.records[key].target is not None]
        bare = [replace(self.records[key], baseline=None) for key in keys]
        known = MeasuredBaselines()
        limit = self.limit_of("baselines")
        for scored in isolated(bare, lambda part: add_contrast(self.classifier, self.config, batch, part, known, limit)):
            if isinstance(scored, ItemFailure):
                _log.warning("%s: %s: the baselines could not be scored (%s)", scored.item.image_id, scored.item.method, scored.error)
                continue
            for record in scored:
                key = record.row, record.method, record.rank
                self.records[key] = replace(
                    self.records[key],
                    metrics_baseline_probability=record.metrics_baseline_probability,
                    metrics_no_contrast=record.metrics_no_contrast,
                )

    def _count(self, batch: Batch, records: Sequence[Record], todo: MetricSettings) -> None:
        """Report the forward passes of a batch whose maps were measured."""
        if self.progress is not None:
            height, width = batch.images.shape[-2:]
            none, one = (metric_forwards(height, width, todo, maps) for maps in (0, 1))
            classes = {(record.row, record.target, record.contrast) for record in records}
            self.progress(len(classes) * none + len(records) * (one - none))


def _open_metrics(wanted: MetricSettings, found: MetricSettings | None) -> tuple[MetricSettings | None, frozenset[str]]:
    """Return the settings of what is to be measured, and the metrics to keep."""
    if found is None or not same_numbers(found, wanted):
        return wanted, frozenset()
    kept = frozenset(found.names or ()) & frozenset(wanted.names or ())
    missing = tuple(name for name in wanted.names or () if name not in kept)
    return (wanted.model_copy(update={"names": missing}) if missing else None), kept


def _with_kept(record: Record, names: frozenset[str]) -> Record:
    """Return a stored record with these metrics alone, or without any number."""
    if not names:
        return record.unmeasured()
    measures = {baseline: _only(values, names) for baseline, values in record.measures.items()}
    kept = replace(record, metrics=_only(record.metrics, names), measures=measures)
    return replace(kept, deletion=None, insertion=None) if all(METRICS[name].map_only for name in names) else kept


def _only(values: Mapping[str, float | None], names: frozenset[str]) -> dict[str, float | None]:
    return {name: value for name, value in values.items() if name in names}


def _checksums(item: LoadedSample) -> tuple[str | None, str | None]:
    return item.image_facts.get("sha256"), item.image_facts.get("truth_sha256")
