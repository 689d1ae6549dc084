"""Average drop and increase (Section 4.5 of the paper).

Both compare the target's probability for the whole image and for its most salient pixels alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric, MetricInput

# Per cent of the pixels that are removed.
REMOVED = (80, 70)


def average_drop(clean: Tensor, remaining: Tensor) -> Tensor:
    """Return max(0, Y - O) / Y, any shape -> the same.

    Y is the probability for the whole image, O that for the pixels that remain.
    """
    return (clean - remaining).clamp(min=0) / clean


def increase(clean: Tensor, remaining: Tensor) -> Tensor:
    """Return [Y < O] as 0 or 1, NaN where either is; any shape -> the same."""
    return torch.where(clean.isnan() | remaining.isnan(), torch.nan, (remaining > clean).to(clean.dtype))


def _drop(removed: int, definition: str) -> Metric:
    def compute(measured: MetricInput) -> Tensor:
        return average_drop(measured.clean, measured.remaining[removed])

    return Metric(f"average_drop_{removed}", f"drop {removed}%", definition, lower_is_better=True, compute=compute)


def _increase(removed: int, definition: str) -> Metric:
    def compute(measured: MetricInput) -> Tensor:
        return increase(measured.clean, measured.remaining[removed])

    return Metric(f"increase_{removed}", f"increase {removed}%", definition, lower_is_better=False, compute=compute)


AVERAGE_DROP_80 = _drop(80, "share of the class's probability that is lost when only the most important 20% of the pixels are shown")
AVERAGE_DROP_70 = _drop(70, "the same when the most important 30% are shown")
INCREASE_80 = _increase(
    80, "share of the images on which the class's probability rises when only the most important 20% of the pixels are shown"
)
INCREASE_70 = _increase(70, "the same when the most important 30% are shown")
