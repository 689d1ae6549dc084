"""Explanation of one shard: images in, arrays and records out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from torch import Tensor

from hdm_core import Classifier
from hdm_core.device import default_batch, device_name
from pipeline.classifiers.load import preprocess_of
from pipeline.classifiers.targets import MapFailure, MapRequest, request_maps
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.datasets.batches import LoadedSample, UnreadableSample, read_batches
from pipeline.explain.batch import Batch
from pipeline.explain.measure import measure
from pipeline.explain.method import MethodResult, PassCallback, explain_method
from pipeline.explain.results import ResultCollector, ShardResult
from pipeline.plan import Shard
from pipeline.runs.records import Record
from pipeline.runs.reused import ReusedResults


def explain_shard(
    classifier: Classifier,
    config: RunConfig,
    shard: Shard,
    samples: Sequence[Sample],
    progress: PassCallback | None = None,
    batch_size: int | None = None,
    reused: ReusedResults | None = None,
) -> ShardResult:
    """Explain the samples of a shard with every method of the configuration.

    An image that cannot be read, or on which a method fails, becomes records with that status; its maps are zeros.

    Args:
        samples: of the shard.
        progress: called with the number of passes just done.
        batch_size: images that go through the network at once; None takes the configuration's, or the device's.
        reused: results that are taken from earlier runs.
    """
    preprocess, device = preprocess_of(classifier), device_name(classifier.device)
    batch_size = batch_size or config.compute.fixed_batch_size or default_batch(classifier.device)
    collector = ResultCollector(config, shard, samples, preprocess.crop, device, reused or ReusedResults())
    open_rows = [row - shard.start for row in collector.open_rows()]
    images_at_once, timeout = max(1, batch_size // config.ranks), config.compute.storage_timeout
    for items in read_batches(samples, config.storage, preprocess, images_at_once, open_rows, timeout=timeout):
        for item in items:
            collector.add_facts(shard.start + item.row, item.image_facts)
            if isinstance(item, UnreadableSample):
                collector.add_unreadable(shard.start + item.row, item.error)
        if loaded := [item for item in items if isinstance(item, LoadedSample)]:
            batch = Batch.from_loaded(classifier, shard, samples, loaded)
            _explain_batch(classifier, config, batch, collector, batch_size, progress)
    return collector.result()


def _explain_batch(
    classifier: Classifier, config: RunConfig, batch: Batch, collector: ResultCollector, batch_size: int, progress: PassCallback | None
) -> None:
    """Explain a batch with every method, measure the maps and collect the results."""
    requested = request_maps(config.target, classifier, batch.samples, batch.images)
    requests = [item for item in requested if isinstance(item, MapRequest)]
    failures = [item for item in requested if isinstance(item, MapFailure)]
    explained: list[tuple[Record, Tensor]] = []
    for method in config.methods:
        is_open = [not collector.is_reused(row, method) for row in batch.rows]
        open_requests = [request for request in requests if is_open[request.place]]
        open_failures = [failure for failure in failures if is_open[failure.request.place]]
        results = explain_method(classifier, config, batch, open_requests, method, batch_size, progress)
        for result in chain(open_failures, results):
            if isinstance(result, MapFailure):
                row, rank = batch.rows[result.request.place], result.request.rank
                collector.add_record(collector.new_record(row, method, rank, "failed", result.error))
            else:
                explained += _collect(classifier, batch, collector, result)
    for record in measure(classifier, batch, explained, config.metrics, batch_size):
        collector.add_record(record)


def _collect(classifier: Classifier, batch: Batch, collector: ResultCollector, result: MethodResult) -> Iterator[tuple[Record, Tensor]]:
    """Collect a method's maps and records; yield those whose map can be measured."""
    rows, ranks = [batch.rows[request.place] for request in result.requests], [request.rank for request in result.requests]
    explanation, stage_weights = result.explanation, result.explanation.stage_weights
    collector.add_maps(result.method, rows, ranks, explanation)
    probabilities = explanation.logits.softmax(1)
    for i, (request, target) in enumerate(zip(result.requests, explanation.targets.tolist(), strict=True)):
        record = replace(
            collector.new_record(rows[i], result.method, request.rank, explanation.status[i]),
            target=target,
            target_name=classifier.class_name(target),
            probability=float(probabilities[i, target]),
            logit=float(explanation.logits[i, target]),
            region=batch.region_kinds[request.place],
            passes=explanation.passes,
            stage_weights=None if stage_weights is None else stage_weights[i].tolist(),
            seconds=result.seconds,
        )
        collector.add_record(record)
        if record.status == "ok":
            yield record, explanation.maps[i]
