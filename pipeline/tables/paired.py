"""Paired comparison of every method with a reference method, in every metric."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METRICS, controls_last
from pipeline.errors import InputError, suggest
from pipeline.runs import RunStore
from pipeline.runs.records import FILE_METADATA, from_parquet, to_parquet
from pipeline.tables.bootstrap import bootstrap_intervals
from pipeline.tables.controls import by_method
from pipeline.tables.wilcoxon import holm, wilcoxon

NAME = "statistics.parquet"

STATISTICS = pa.schema(
    [
        ("method", pa.string()),
        ("reference", pa.string()),
        ("metric", pa.string()),
        ("n", pa.int64()),
        ("n_unpaired", pa.int64()),
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("p", pa.float64()),
        ("p_holm", pa.float64()),
        ("wins", pa.int64()),
        ("ties", pa.int64()),
        ("losses", pa.int64()),
        ("effect_size", pa.float64()),
        ("n_needed", pa.int64()),
    ],
    metadata=FILE_METADATA,
)

FloatArray = NDArray[np.float64]
Names = tuple[str, str, str]  # method, reference, metric

ALPHA = 0.05
POWER = 0.8

# Of the larger of two values. Metrics are float32, whose rounding depends on the batch: what differs by less is equal.
_ROUNDING = 1e-6

_MOST_IMAGES = 10**9  # of n_needed: a difference that only more images would show is none


@dataclass(frozen=True)
class PairedDifference:
    """Paired difference of a method and the reference in one metric.

    Attributes:
        n: images with a value of both.
        n_unpaired: images of the run with a value of one of them alone, because a map is flat or failed; they are not compared.
        difference: mean over the n images of the method's value minus the reference's, in the metric's own direction; None without images.
        low, high: ends of its 95% interval, percentiles of the paired bootstrap; None for fewer than two images.
        p: of Wilcoxon's signed-rank test, two-sided; None for fewer than two images.
        p_holm: p after Holm's correction for all comparisons of the table.
        wins, ties, losses: images on which the method is better than, equal to and worse than the reference.
        effect_size: Cohen's d_z, the mean of the differences by their standard deviation; None where all are equal.
        n_needed: images with which a test of paired differences of this size would find them in 80% of samples; None where no number does.
    """

    method: str
    reference: str
    metric: str
    n: int
    n_unpaired: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    wins: int
    ties: int
    losses: int
    effect_size: float | None
    n_needed: int | None

    @property
    def verdict(self) -> str:
        """Significant direction at 5% after the correction: better, worse, or empty."""
        if self.p_holm is None or self.difference is None or self.p_holm >= ALPHA or self.difference == 0:
            return ""
        return "better" if (self.difference < 0) == METRICS[self.metric].lower_is_better else "worse"


def reference_method(methods: Iterable[str], against: str | None = None) -> str:
    """Return the method that the others are compared with.

    It is `against`, else HDM if the run has it, else the run's first method, of the controls only if there is nothing else.

    Args:
        methods: those of the run, at least one.

    Raises:
        InputError: if the run does not have the method `against`.
    """
    names = controls_last(methods)
    if against is None:
        return "hdm" if "hdm" in names else names[0]
    if against not in names:
        raise InputError(f"--against {against}: the run has no such method{suggest(against, names, list_all=True)}")
    return against


def compare_with(records: pa.Table, against: str | None = None) -> list[PairedDifference]:
    """Compare every method with a reference, image by image.

    Metrics are in the registry's order, then methods, the controls last. A metric in which no two methods share an image is left out,
    and so are metrics that are not installed here: their direction is unknown.

    Args:
        records: one row per image and method.
        against: the reference; None for that of `reference_method`.

    Raises:
        InputError: if the run does not have the method `against`.
    """
    methods = controls_last(pc.unique(records["method"]).to_pylist())
    if not methods:
        return []
    reference = reference_method(methods, against)
    others = [method for method in methods if method != reference]
    pairs: dict[Names, tuple[FloatArray, FloatArray]] = {}
    for metric in (name for name in METRICS if name in records.column_names):
        values = by_method(records, metric, methods)
        if any(np.isfinite(values[method] - values[reference]).any() for method in others):
            pairs |= {(method, reference, metric): (values[method], values[reference]) for method in others}
    if not pairs:
        return []
    # Of all at once: to draw 10,000 samples of 1,000 images takes a second.
    intervals = bootstrap_intervals(np.stack([_differences(*values) for values in pairs.values()], 1)).T.tolist()
    found = [_compare(ours, theirs, names, interval) for (names, (ours, theirs)), interval in zip(pairs.items(), intervals, strict=True)]
    tested = [each.p for each in found if each.p is not None]
    adjusted = iter(holm(tested))
    return [each if each.p is None else replace(each, p_holm=next(adjusted)) for each in found]


def images_needed(effect_size: float) -> int | None:
    """Return the images that a two-sided paired test at 5% needs for 80% power.

    n = ((z_0.975 + z_0.8) / d_z)^2 of the normal approximation, rounded up, at least 2; None where that is more than 10^9.
    """
    if effect_size == 0:
        return None
    n = ((NormalDist().inv_cdf(1 - ALPHA / 2) + NormalDist().inv_cdf(POWER)) / effect_size) ** 2
    return max(2, math.ceil(n)) if n <= _MOST_IMAGES else None


def write_statistics(store: RunStore, records: pa.Table) -> None:
    """Write statistics.parquet: the comparison with the run's reference.

    Args:
        records: one row per image and method.
    """
    store.storage.write(NAME, to_parquet([asdict(each) for each in compare_with(records)], STATISTICS))


def read_statistics(store: RunStore) -> list[PairedDifference]:
    """Read statistics.parquet.

    Rows of metrics that are not installed here are left out.

    Raises:
        FileNotFoundError: if the run was not aggregated by this version yet.
    """
    rows = from_parquet([store.storage.read(NAME)], STATISTICS).to_pylist()
    return [PairedDifference(**row) for row in rows if row["metric"] in METRICS]


def _differences(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """Subtract image by image; NaN without both values, 0 within rounding."""
    with np.errstate(invalid="ignore"):  # of two infinite values
        differences = ours - theirs
    return np.where(np.abs(differences) <= _ROUNDING * np.fmax(np.abs(ours), np.abs(theirs)), 0.0, differences)


def _compare(ours: FloatArray, theirs: FloatArray, names: Names, interval: tuple[float, float]) -> PairedDifference:
    differences = _differences(ours, theirs)
    differences = differences[np.isfinite(differences)]
    n, several = len(differences), len(differences) > 1
    unpaired = int((np.isfinite(ours) != np.isfinite(theirs)).sum())
    better = -differences if METRICS[names[2]].lower_is_better else differences
    mean = float(differences.mean()) if n else None
    deviation = float(differences.std(ddof=1)) if several else 0.0
    largest = float(np.nanmax(np.fmax(np.abs(ours), np.abs(theirs)), initial=0.0))
    effect_size = mean / deviation if mean is not None and deviation > _ROUNDING * largest else None
    return PairedDifference(
        *names,
        n=n,
        n_unpaired=unpaired,
        difference=mean,
        low=interval[0] if several else None,
        high=interval[1] if several else None,
        p=wilcoxon(differences) if several else None,
        p_holm=None,
        wins=int((better > 0).sum()),
        ties=int((better == 0).sum()),
        losses=int((better < 0).sum()),
        effect_size=effect_size,
        n_needed=None if effect_size is None else images_needed(effect_size),
    )
