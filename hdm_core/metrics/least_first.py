"""Least salient first: the deletion curve in the other order, and SRG.

Blücher, Vielhaben, Strodthoff, TMLR 2024. In the protocol `paper` deletion and insertion have one baseline, so that the insertion curve,
read backwards, is the deletion of the least salient pixels: it needs no pass. In the protocol `rise` insertion starts from the blurred
image and deletion ends at the baseline; the two directions would replace pixels by different values, and both metrics are NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.curves import area


def least_first_curve(measured: MetricInput) -> Tensor:
    """Return the probability while the least salient pixels go, (N, points).

    It is NaN in the protocol `rise`.
    """
    curve = measured.insertion.flip(1)
    return curve if measured.settings.protocol == "paper" else torch.full_like(curve, torch.nan)


LEAST_FIRST_AUC = Metric(
    id="least_first_auc",
    title="least first",
    definition="area under the class's probability while pixels are hidden, the least important first",
    lower_is_better=False,
    compute=lambda measured: area(least_first_curve(measured)),
    on_request=True,
    protocols=("paper",),
)
SRG = Metric(
    id="srg",
    title="SRG",
    definition="symmetric relevance gain: the area while pixels are hidden, least important first, minus that of the most important first",
    lower_is_better=False,
    compute=lambda measured: area(least_first_curve(measured)) - area(measured.deletion),
    value_range=(-1.0, 1.0),
    on_request=True,
    protocols=("paper",),
)
