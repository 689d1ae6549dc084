"""Limits of drift, and the statistics that exceed them."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from hdm_core import METRICS, Metric
from pipeline.config.schema import Section
from pipeline.drift.compare import Drift
from pipeline.drift.summary import Statistic

Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]


class _MapLimits(Section):
    """Limits of means over the images, each of one method.

    A limit is exceeded where the whole 95% interval lies beyond it: then the choice of the images is not the reason.
    """

    flips: Share | None = Field(None, description="largest share of the images for which another class is explained")
    probability: Share | None = Field(None, description="largest change of the class's probability, up or down")
    drift: Share | None = Field(None, description="at most")
    spearman: Correlation | None = Field(None, description="at least")
    ssim: Correlation | None = Field(None, description="at least")
    overlap: Share | None = Field(None, description="at least")
    by_class: bool = Field(False, description="the limits hold for every class as well")


def _limit(metric: Metric) -> Any:
    """Return the field of a metric's limit: how much worse it may get."""
    lowest, highest = metric.value_range
    largest = highest - lowest if isfinite(highest - lowest) else None
    description = f"largest change of {metric.title} for the worse; a change for the better is never too much"
    return Annotated[float, Field(ge=0, le=largest)] | None, Field(None, description=description)


if TYPE_CHECKING:
    DriftLimits = _MapLimits
else:  # with one more limit per metric
    DriftLimits = create_model(
        "DriftLimits",
        __base__=_MapLimits,
        __doc__=_MapLimits.__doc__,
        __module__=__name__,
        **{name: _limit(metric) for name, metric in METRICS.items()},
    )


def exceeded(drift: Drift, limits: DriftLimits) -> list[str]:
    """Return one line per limit that is exceeded.

    A line has the quantity, its value with the interval, and the limit.
    """
    return [
        line for statistic in drift.statistics if statistic.class_name is None or limits.by_class for line in _exceeded(statistic, limits)
    ]


def _exceeded(statistic: Statistic, limits: DriftLimits) -> Iterator[str]:
    quantity, estimate = statistic.quantity, statistic.estimate
    limit: float | None = getattr(limits, quantity)
    if limit is None or estimate.mean is None or estimate.low is None or estimate.high is None:
        return
    if quantity in {"spearman", "ssim", "overlap"}:
        beyond, words = estimate.high < limit, f"below {limit:g}"
    elif quantity == "probability":
        beyond, words = estimate.low > limit or estimate.high < -limit, f"a change of more than {limit:g}"
    elif quantity in METRICS:
        worse = estimate.low > limit if METRICS[quantity].lower_is_better else estimate.high < -limit
        beyond, words = worse, f"worse by more than {limit:g}"
    else:
        beyond, words = estimate.low > limit, f"above {limit:g}"
    if beyond:
        of = "" if statistic.class_name is None else f", class {statistic.class_name}"
        yield f"{statistic.method}{of}: {quantity} {estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f}) is {words}"
