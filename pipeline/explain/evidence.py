"""Pieces of evidence of the images of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from hdm_core import Classifier, EvidenceSettings, find_evidence
from hdm_core.batch_limit import BatchLimit
from pipeline.classifiers.targets import MapFailure, MapRequest
from pipeline.config.schema import EVIDENCE_METHOD, RunConfig
from pipeline.explain.batch import Batch
from pipeline.explain.isolate import ItemFailure, isolated
from pipeline.explain.method import PassCallback, requested_classes
from pipeline.explain.results import ResultCollector
from pipeline.runs.records import FAILED_STATUSES


def collect_evidence(
    classifier: Classifier,
    config: RunConfig,
    settings: EvidenceSettings,
    batch: Batch,
    requested: Sequence[MapRequest | MapFailure],
    collector: ResultCollector,
    limit: BatchLimit,
    progress: PassCallback | None,
) -> None:
    """Add the evidence of a batch to the records of HDM that were just computed.

    A map whose evidence cannot be searched fails, as one that cannot be measured does: the reason is its error.

    Args:
        requested: what was requested of each image.
        limit: of the images that go through the network at once; halved for good where memory runs out.
    """

    def find(requests: Sequence[MapRequest]) -> None:
        targets, contrast = requested_classes(requests)
        images = batch.images[[request.place for request in requests]]
        evidence = find_evidence(
            classifier,
            images,
            targets,
            settings,
            contrast=contrast,
            batch=limit,
            precision=config.compute.fixed_precision,
            progress=progress,
            cuda_graphs=config.compute.cuda_graphs,
        )
        collector.add_evidence([batch.rows[request.place] for request in requests], [request.rank for request in requests], evidence)

    def is_open(request: MapRequest) -> bool:
        row = batch.rows[request.place]
        record = collector.record(row, EVIDENCE_METHOD, request.rank)
        return not collector.is_reused(row, EVIDENCE_METHOD) and record is not None and record.status not in FAILED_STATUSES

    open_requests = [request for request in requested if isinstance(request, MapRequest) and is_open(request)]
    for outcome in isolated(open_requests, find, memory_fails_shard=False):
        if isinstance(outcome, ItemFailure):
            row, rank = batch.rows[outcome.item.place], outcome.item.rank
            collector.add_failed_map(row, EVIDENCE_METHOD, rank, f"{outcome.error} (while its evidence was searched)")
