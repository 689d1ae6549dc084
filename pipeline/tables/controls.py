"""Paired comparison of a run's methods with its controls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METRICS, controls_last, is_control, method_title, metric_title


@dataclass(frozen=True)
class ControlComparison:
    """Mean paired difference of a method and a control in one metric.

    Attributes:
        advantage: mean over the images of the method's value minus the control's, or of the opposite where less is better: positive where
            the method is better.
        ci95: half the width of its normal 95% interval.
        n: images with a value of both, at least 2.
    """

    method: str
    control: str
    metric: str
    advantage: float
    ci95: float
    n: int

    @property
    def beats(self) -> bool:
        """True if the whole interval is on the method's side."""
        return self.advantage - self.ci95 > 0


def compare_with_controls(records: pa.Table) -> list[ControlComparison]:
    """Compare every method with every control in every metric, image by image.

    Methods, controls and metrics are in the registry's order, controls before metrics. Metrics with fewer than two images that have both
    values are left out: there is no interval.

    Args:
        records: one row per image and method.
    """
    names = controls_last(pc.unique(records["method"]).to_pylist())
    methods, controls = [name for name in names if not is_control(name)], [name for name in names if is_control(name)]
    if not methods or not controls:
        return []
    found = {}
    for metric in METRICS:
        if metric not in records.column_names:
            continue
        values = by_method(records, metric, names)
        for method in methods:
            for control in controls:
                comparison = _compare(values, method, control, metric)
                if comparison is not None:
                    found[method, control, metric] = comparison
    keys = ((method, control, metric) for method in methods for control in controls for metric in METRICS)
    return [found[key] for key in keys if key in found]


def unbeaten_controls(comparisons: Iterable[ControlComparison]) -> list[str]:
    """Return a sentence for every method that does not beat a control somewhere.

    Example: "Gradient does not beat Edges in deletion and insertion, nor Random map in any of 7 metrics."
    """
    sentences = (_sentence(method, list(group)) for method, group in groupby(comparisons, lambda each: each.method))
    return [sentence for sentence in sentences if sentence]


def by_method(records: pa.Table, metric: str, methods: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return a metric's values by method, one per image row; NaN without a value."""
    rows, names = records["row"].to_numpy(), records["method"]
    values = pc.cast(records[metric], pa.float64()).to_numpy()
    result = {}
    for method in methods:
        chosen = pc.equal(names, method).to_numpy()
        result[method] = np.full(rows.max() + 1, np.nan)
        result[method][rows[chosen]] = values[chosen]
    return result


def _compare(values: dict[str, NDArray[np.float64]], method: str, control: str, metric: str) -> ControlComparison | None:
    differences = values[method] - values[control]
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return None
    advantage = -differences if METRICS[metric].lower_is_better else differences
    half_width = 1.96 * float(advantage.std(ddof=1)) / math.sqrt(len(advantage))
    return ControlComparison(method, control, metric, float(advantage.mean()), half_width, len(advantage))


def _sentence(method: str, comparisons: Sequence[ControlComparison]) -> str:
    parts = [text for control, group in groupby(comparisons, lambda each: each.control) for text in _unbeaten(control, list(group))]
    return f"{method_title(method)} does not beat {', nor '.join(parts)}." if parts else ""


def _unbeaten(control: str, comparisons: Sequence[ControlComparison]) -> Iterator[str]:
    """Yield a control with the metrics in which it is not beaten, if any."""
    metrics = [metric_title(each.metric) for each in comparisons if not each.beats]
    if len(metrics) == len(comparisons) > 1:
        yield f"{method_title(control)} in any of {len(metrics)} metrics"
    elif metrics:
        *first, last = metrics
        yield f"{method_title(control)} in {', '.join(first)} and {last}" if first else f"{method_title(control)} in {last}"
