"""Explanation of one shard: images in, arrays and records out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from torch import Tensor

from hdm_core import Classifier
from hdm_core.batch_limit import BatchLimit
from hdm_core.device import default_batch, device_name
from hdm_core.targets import contrasting
from pipeline.classifiers.load import own_preparation, preprocess_of
from pipeline.classifiers.targets import MapFailure, MapRequest, request_maps
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.datasets.batches import LoadedBatch, LoadedSample, UnreadableSample, read_batches
from pipeline.datasets.sample import as_text
from pipeline.explain.batch import Batch
from pipeline.explain.contrast import MeasuredBaselines, add_contrast
from pipeline.explain.evidence import collect_evidence
from pipeline.explain.isolate import ItemFailure, isolated, warnings_as_messages
from pipeline.explain.map_facts import map_facts
from pipeline.explain.measure import measure
from pipeline.explain.method import MethodResult, PassCallback, explain_method
from pipeline.explain.results import ResultCollector, ShardResult, ShardSeconds
from pipeline.plan import Shard
from pipeline.runs.records import Record
from pipeline.runs.reused import ReusedResults

_log = logging.getLogger(__name__)


def explain_shard(
    classifier: Classifier,
    config: RunConfig,
    shard: Shard,
    samples: Sequence[Sample],
    progress: PassCallback | None = None,
    batch_size: int | None = None,
    reused: ReusedResults | None = None,
    limits: dict[str, BatchLimit] | None = None,
) -> ShardResult:
    """Explain the samples of a shard with every method of the configuration.

    An image that cannot be read, or for which anything fails, becomes records with that status and the error; its maps are zeros.
    It costs the other images of its batch nothing.

    Args:
        samples: of the shard.
        progress: called with the number of passes just done.
        batch_size: images that go through the network at once; None takes the configuration's, or the device's.
        reused: results that are taken from earlier runs.
        limits: batch sizes that ran out of memory before, by method, and for metrics and targets. They are added to, so that the next shard
            begins with the sizes that fitted.

    Raises:
        RunError: if the storage does not answer.
        torch.OutOfMemoryError: if one image alone does not fit into the GPU's memory while it is prepared or measured.
        RuntimeError: if the device failed, see `is_fatal`: no image is to blame.
    """
    preprocess, device = preprocess_of(classifier), device_name(classifier.device)
    batch_size = batch_size or config.compute.fixed_batch_size or default_batch(classifier.device)
    collector = ResultCollector(config, shard, samples, preprocess.size, device, reused or ReusedResults())
    open_rows = [row - shard.start for row in collector.open_rows()]
    known_limits = {} if limits is None else limits
    images_at_once, timeout = max(1, batch_size // config.ranks), config.compute.storage_timeout

    def limit_of(work: str) -> BatchLimit:
        return known_limits.setdefault(work, BatchLimit(batch_size, work))

    def explain_batch(read: LoadedBatch) -> None:
        loaded = read.loaded

        def explain_loaded(part: Sequence[LoadedSample]) -> None:
            batch = Batch.from_loaded(classifier, shard, samples, part, read.images if len(part) == len(loaded) else None)
            _explain_batch(classifier, config, batch, collector, limit_of, progress)

        for item in read.items:
            collector.add_facts(shard.start + item.row, item.image_facts)
            if isinstance(item, UnreadableSample):
                collector.add_failed_image(shard.start + item.row, item.status, item.error)
        for outcome in isolated(loaded, explain_loaded):
            if isinstance(outcome, ItemFailure):
                collector.add_failed_image(shard.start + outcome.item.row, "failed", outcome.error)

    prepare = own_preparation(classifier)
    batches = read_batches(
        samples,
        config.storage,
        preprocess,
        images_at_once,
        open_rows,
        timeout=timeout,
        prepare=prepare,
        pin_memory=prepare is None and classifier.device.type == "cuda",
    )
    with warnings_as_messages(), closing(batches):  # closed at once if the shard fails: a traceback would keep its threads
        explaining, waiting, before = 0.0, 0.0, time.perf_counter()
        for read in batches:
            arrived = time.perf_counter()
            explain_batch(read)
            waiting, explaining, before = waiting + arrived - before, explaining + time.perf_counter() - arrived, time.perf_counter()
    return collector.result(ShardSeconds(explaining, waiting))


def _explain_batch(
    classifier: Classifier,
    config: RunConfig,
    batch: Batch,
    collector: ResultCollector,
    limit_of: Callable[[str], BatchLimit],
    progress: PassCallback | None,
) -> None:
    """Explain a batch with every method, measure the maps and collect the results."""
    requested = request_maps(config.target, classifier, batch.samples, batch.images, limit_of("targets"))
    explained: list[tuple[Record, Tensor]] = []
    baselines = MeasuredBaselines()
    for method in config.methods:
        is_open = [not collector.is_reused(row, method) for row in batch.rows]

        def explain_and_collect(requests: Sequence[MapRequest], method: str = method) -> list[tuple[Record, Tensor]]:
            result = explain_method(classifier, config, batch, requests, method, limit_of(method), progress)
            baselines.add_explanation([batch.rows[request.place] for request in requests], result.explanation)
            return _collect(classifier, batch, collector, result)

        requests = [item for item in requested if isinstance(item, MapRequest) and is_open[item.place]]
        for item in requested:
            if isinstance(item, MapFailure) and is_open[item.request.place]:
                collector.add_failed_map(batch.rows[item.request.place], method, item.request.rank, item.error, item.status)
        for outcome in isolated(requests, explain_and_collect, memory_fails_shard=False):
            if isinstance(outcome, ItemFailure):
                collector.add_failed_map(batch.rows[outcome.item.place], method, outcome.item.rank, outcome.error)
            else:
                explained += outcome
    if config.evidence is not None:
        collect_evidence(classifier, config, config.evidence, batch, requested, collector, limit_of("evidence"), progress)
        current = [(collector.record(record.row, record.method, record.rank), map_) for record, map_ in explained]
        explained = [(record, map_) for record, map_ in current if record is not None and record.status == "ok"]
    if (metrics := config.metrics) is not None:
        for measured in isolated(explained, lambda pairs: measure(classifier, batch, pairs, metrics, limit_of("metrics"))):
            if isinstance(measured, ItemFailure):
                record, _ = measured.item
                collector.add_failed_map(record.row, record.method, record.rank, f"{measured.error} (while the map was measured)")
            else:
                for record in measured:
                    collector.add_record(record)
    records = collector.explained_records(batch.rows)
    for added in isolated(records, lambda part: add_contrast(classifier, config, batch, part, baselines, limit_of("baselines"))):
        if isinstance(added, ItemFailure):
            record = added.item
            _log.warning("%s: %s: the baselines could not be scored (%s)", record.image_id, record.method, added.error)
        else:
            for record in added:
                collector.add_record(record)


def _collect(classifier: Classifier, batch: Batch, collector: ResultCollector, result: MethodResult) -> list[tuple[Record, Tensor]]:
    """Collect a method's maps and records; return those whose map can be measured."""
    rows, ranks = [batch.rows[request.place] for request in result.requests], [request.rank for request in result.requests]
    explanation = result.explanation
    collector.add_maps(result.method, rows, ranks, explanation)
    answers, logits, columns = classifier, explanation.logits, explanation.targets
    if explanation.contrasts is not None:
        answers, columns = contrasting(classifier, explanation.targets, explanation.contrasts)
        logits = answers.differences(logits)
    scores, probabilities = (each.gather(1, columns[:, None])[:, 0] for each in (logits, answers.probabilities(logits)))
    explained = []
    for i, (request, facts) in enumerate(zip(result.requests, map_facts(explanation, columns, scores, probabilities), strict=True)):
        record = replace(
            collector.new_record(rows[i], result.method, request.rank, explanation.status[i]),
            target=facts.target,
            target_name=as_text(str(answers.class_name(facts.column))),  # Parquet takes valid UTF-8 only
            contrast=facts.contrast,
            probability=facts.probability,
            logit=facts.logit,
            region=batch.region_kinds[request.place],
            passes=explanation.passes,
            stage_weights=facts.stage_weights,
            seconds=result.seconds,
            baseline=None if explanation.baselines is None else explanation.baselines[i],
        )
        collector.add_record(record)
        if record.status == "ok":
            explained.append((record, explanation.maps[i]))
    return explained
