"""Maps become records: what was explained, how it ended, and how faithful the map is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hdm_core import Classifier, Explanation, MetricSettings, evaluate
from pipeline.classifiers.targets import MapRequest


@dataclass(frozen=True)
class MethodResult:
    """What one method made of some images of a batch.

    Attributes:
        method: its id.
        wanted: what was asked for, as many as the explanation has maps.
        seconds: a map.
    """

    method: str
    requests: Sequence[MapRequest]
    explanation: Explanation
    seconds: float


def measure(
    classifier: Classifier,
    images: Tensor,
    regions: Tensor,
    kinds: Sequence[str],
    explained: Sequence[MethodResult],
    settings: MetricSettings,
    batch: int,
) -> dict[tuple[MapRequest, str], dict[str, Any]]:
    """(wanted, method) -> a record for every map.

    Where the status is ok it has the metrics and the curves `deletion` and `insertion`; all maps are measured together.

    Args:
        images: (B, C, H, W), the batch.
        regions: (B, H, W) bool, the ground truth.
        kinds: of the B regions.
        batch: how many images go through the network at once.
    """
    records: dict[tuple[MapRequest, str], dict[str, Any]] = {}
    maps: dict[tuple[MapRequest, str], Tensor] = {}
    for item in explained:
        explanation, weights = item.explanation, item.explanation.stage_weights
        probability = explanation.logits.softmax(1)
        for i, (wanted, target) in enumerate(zip(item.requests, explanation.targets.tolist(), strict=True)):
            records[wanted, item.method] = {
                "status": explanation.status[i],
                "target": target,
                "target_name": classifier.class_name(target),
                "probability": float(probability[i, target]),
                "logit": float(explanation.logits[i, target]),
                "region": kinds[wanted.place],
                "passes": explanation.passes,
                "stage_weights": None if weights is None else weights[i].tolist(),
                "seconds": item.seconds,
            }
            if explanation.status[i] == "ok":
                maps[wanted, item.method] = explanation.maps[i]
    if maps:
        # Measured on what is stored, so that a reader of the store can repeat it.
        stored = torch.stack(list(maps.values())).half().float()
        about = [(wanted.place, records[wanted, method]["target"]) for wanted, method in maps]
        asked = list(dict.fromkeys(about))
        places, targets = torch.tensor(asked).unbind(1)
        index = torch.tensor([asked.index(pair) for pair in about])
        metrics = evaluate(classifier, images[places], stored, targets, regions[places], settings, index=index, batch=batch)
        for name, values in metrics.values.items():
            for key, value in zip(maps, values.tolist(), strict=True):
                records[key][name] = None if math.isnan(value) else value  # NaN: the metric does not apply
        for key, deletion, insertion in zip(maps, metrics.deletion.tolist(), metrics.insertion.tolist(), strict=True):
            records[key] |= {"deletion": deletion, "insertion": insertion}
    return records
