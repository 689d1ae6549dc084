"""How much drift is too much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from hdm_core import METRICS
from pipeline.config.schema import Section
from pipeline.drift.compare import Drift
from pipeline.drift.summary import Statistic

Share = Annotated[float, Field(ge=0, le=1)]
Likeness = Annotated[float, Field(ge=-1, le=1)]


class DriftLimits(Section):
    """Limits of means over the images, each of one method.

    A limit is exceeded where the whole 95% interval lies beyond it: then it is not the choice of the images that makes it so.
    """

    flips: Share | None = Field(None, description="at most this share of the images is answered with another class")
    probability: Share | None = Field(None, description="the class's probability changes by at most so much, up or down")
    drift: Share | None = Field(None, description="at most")
    spearman: Likeness | None = Field(None, description="at least")
    ssim: Likeness | None = Field(None, description="at least")
    overlap: Share | None = Field(None, description="at least")
    average_drop_80: Share | None = Field(None, description="a metric gets worse by at most so much; better is never too much")
    average_drop_70: Share | None = None
    increase_80: Share | None = None
    increase_70: Share | None = None
    deletion_auc: Share | None = None
    insertion_auc: Share | None = None
    proportion: Share | None = None
    by_class: bool = Field(False, description="every class keeps the limits, too")


def exceeded(drift: Drift, limits: DriftLimits) -> list[str]:
    """One line for every limit that is exceeded: what, its value with the interval, and the limit."""
    return [
        line for statistic in drift.statistics if statistic.class_name is None or limits.by_class for line in _beyond(statistic, limits)
    ]


def _beyond(statistic: Statistic, limits: DriftLimits) -> Iterator[str]:
    quantity, found = statistic.quantity, statistic.estimate
    limit: float | None = getattr(limits, quantity)
    if limit is None or found.mean is None or found.low is None or found.high is None:
        return
    if quantity in {"spearman", "ssim", "overlap"}:
        beyond, words = found.high < limit, f"below {limit:g}"
    elif quantity == "probability":
        beyond, words = found.low > limit or found.high < -limit, f"a change of more than {limit:g}"
    elif quantity in METRICS:
        worse = found.low > limit if METRICS[quantity] else found.high < -limit
        beyond, words = worse, f"worse by more than {limit:g}"
    else:
        beyond, words = found.low > limit, f"above {limit:g}"
    if beyond:
        of = "" if statistic.class_name is None else f", class {statistic.class_name}"
        yield f"{statistic.method}{of}: {quantity} {found.mean:.3f} ({found.low:.3f} to {found.high:.3f}) is {words}"
