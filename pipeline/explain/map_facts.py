"""Numbers of the maps of a batch, which their records hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hdm_core import Explanation


@dataclass(frozen=True)
class MapFacts:
    """Numbers of one map for its record.

    Attributes:
        target: the class that the map explains.
        column: the class's column among the outputs that are explained; it differs from `target` with a contrast.
        contrast: the class that the target is compared with; None for none.
        probability, logit: of the column.
        stage_weights: of HDM, else None.
    """

    target: int
    column: int
    contrast: int | None
    probability: float
    logit: float
    stage_weights: list[float] | None


def map_facts(explanation: Explanation, columns: Tensor, logits: Tensor, probabilities: Tensor) -> list[MapFacts]:
    """Return the facts of each map of an explanation.

    They are copied to the host at once: each number read on its own would make it wait for the device. float64 has room for every class
    number below 2^53 and for all bits of the others.

    Args:
        columns: (B,) int64.
        logits: (B,), of the columns.
        probabilities: (B,), of the columns.
    """
    targets = explanation.targets
    contrasts = targets if explanation.contrasts is None else explanation.contrasts
    numbers = torch.stack([each.double() for each in (targets, columns, contrasts, probabilities, logits)], 1)
    if explanation.stage_weights is not None:
        numbers = torch.cat([numbers, explanation.stage_weights.double()], 1)
    return [
        MapFacts(
            target=int(target),
            column=int(column),
            contrast=None if explanation.contrasts is None else int(contrast),
            probability=probability,
            logit=logit,
            stage_weights=None if explanation.stage_weights is None else stage_weights,
        )
        for target, column, contrast, probability, logit, *stage_weights in numbers.tolist()
    ]
