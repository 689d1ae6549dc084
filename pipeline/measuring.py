"""Maps become records: what was explained, how it ended, and how faithful the map is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hdm_core import Classifier, Explanation, MetricSettings, evaluate


def measure(
    classifier: Classifier,
    images: Tensor,
    regions: Tensor,
    kinds: Sequence[str],
    explanation: Explanation,
    settings: MetricSettings,
    batch: int,
) -> list[dict[str, Any]]:
    """A record for each of B explained images; metrics, and the curves `deletion` and `insertion`, for those whose status is ok.

    Args:
        images: (B, C, H, W).
        regions: (B, H, W) bool, the ground truth.
        kinds: of the B regions.
        batch: how many images go through the network at once.
    """
    probability = explanation.logits.softmax(1)
    weights = explanation.stage_weights
    records: list[dict[str, Any]] = []
    for i, target in enumerate(explanation.targets.tolist()):
        records.append(
            {
                "status": explanation.status[i],
                "target": target,
                "target_name": classifier.class_name(target),
                "probability": float(probability[i, target]),
                "logit": float(explanation.logits[i, target]),
                "region": kinds[i],
                "passes": explanation.passes,
                "stage_weights": None if weights is None else weights[i].tolist(),
            }
        )
    good = [i for i, status in enumerate(explanation.status) if status == "ok"]
    if good:
        # Measured on what is stored, so that a reader of the store can repeat it.
        stored = explanation.maps[good].half().float()
        metrics = evaluate(classifier, images[good], stored, explanation.targets[good], regions[good], settings, batch=batch)
        for name, values in metrics.values.items():
            for i, value in zip(good, values.tolist(), strict=True):
                records[i][name] = None if math.isnan(value) else value  # NaN: the metric does not apply
        for i, deletion, insertion in zip(good, metrics.deletion.tolist(), metrics.insertion.tolist(), strict=True):
            records[i] |= {"deletion": deletion, "insertion": insertion}
    return records
