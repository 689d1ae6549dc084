"""Faithfulness and localisation of the maps of a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hdm_core import Classifier, MetricSettings, evaluate
from hdm_core.batch_limit import BatchLimit
from hdm_core.settings import Baseline
from pipeline.explain.batch import Batch
from pipeline.runs.records import Record


def measure(
    classifier: Classifier, batch: Batch, explained: Sequence[tuple[Record, Tensor]], settings: MetricSettings, limit: BatchLimit
) -> list[Record]:
    """Add metrics and curves to records; all maps of a batch are measured together.

    Args:
        explained: records with their maps (H, W), whose status is ok.
        limit: of the images that go through the network at once; halved for good where memory runs out.
    """
    if not explained:
        return []
    records = [record for record, _ in explained]
    # Measured on the float16 values that are stored, so that a reader of the store can repeat it.
    maps = torch.stack([map_ for _, map_ in explained]).half().float()
    explained_classes = [(batch.rows.index(record.row), record.target, record.contrast) for record in records]
    unique = list(dict.fromkeys(explained_classes))  # what maps of one image and class share is computed once
    places, targets, others = zip(*unique, strict=True)
    metrics = evaluate(
        classifier,
        batch.images[list(places)],
        maps,
        torch.tensor(targets),
        batch.regions[list(places)],
        settings,
        contrast=None if None in others else torch.tensor(others),
        index=torch.tensor([unique.index(each) for each in explained_classes]),
        batch=limit,
    )
    deletion, insertion = metrics.deletion.tolist(), metrics.insertion.tolist()
    values = {baseline: {name: column.tolist() for name, column in each.items()} for baseline, each in metrics.by_baseline.items()}
    return [
        replace(record, deletion=deletion[i] or None, insertion=insertion[i] or None, **_of_map(values, i))
        for i, record in enumerate(records)
    ]


def _of_map(values: Mapping[Baseline, Mapping[str, Sequence[float]]], number: int) -> dict[str, Any]:
    """Return the columns of one map, of the first baseline and of all."""
    measures = {baseline: {name: _none_if_nan(column[number]) for name, column in each.items()} for baseline, each in values.items()}
    first = next(iter(measures))
    return {"metrics": measures[first], "metrics_baseline": first, "measures": measures if len(measures) > 1 else {}}


def _none_if_nan(value: float) -> float | None:
    """Replace NaN, which marks a metric that does not apply, with None."""
    return None if math.isnan(value) else value
