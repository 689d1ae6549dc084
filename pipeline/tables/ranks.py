"""Ranks of the methods over the images: Friedman's test, critical differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import stats

from hdm_core import METRICS, controls_last, is_control
from pipeline.tables.bootstrap import bootstrap_intervals
from pipeline.tables.controls import by_method

FloatArray = NDArray[np.float64]

FEWEST_METHODS = 3
FEWEST_IMAGES = 2


@dataclass(frozen=True)
class Ranking:
    """Average ranks of the methods in one metric.

    Attributes:
        n: images with a value of every method; each ranks the methods, the best first, and equal ones share the mean of their ranks.
        ranks: method -> its average rank, the best first.
        statistic: Friedman's chi-squared with its correction for ties.
        p: of Friedman's test that all methods are alike.
        critical_difference: of Nemenyi's test at 5%: average ranks that are less apart are not told apart.
        groups: largest sets of neighbouring methods that are not told apart, of two or more each.
    """

    metric: str
    n: int
    ranks: Mapping[str, float]
    statistic: float
    p: float
    critical_difference: float
    groups: Sequence[Sequence[str]]


@dataclass(frozen=True)
class MeanRank:
    """Rank of a method averaged over metrics and images.

    Attributes:
        rank: the mean over the images of an image's mean rank over the metrics.
        low, high: ends of its 95% interval, percentiles of the bootstrap over the images.
        n: images.
    """

    method: str
    rank: float
    low: float
    high: float
    n: int


def rank_methods(records: pa.Table) -> tuple[list[Ranking], list[MeanRank]]:
    """Rank a run's methods in every metric, and over all of them.

    Controls take no part. Metrics are in the registry's order; a method without any value in a metric takes no part there. Left out are
    metrics in which fewer than three methods, or fewer than two images, remain. The mean rank is over the images and metrics in which
    all methods of the run have a value, and empty for fewer than two images.

    Args:
        records: one row per image and method.
    """
    methods = [name for name in controls_last(pc.unique(records["method"]).to_pylist()) if not is_control(name)]
    if len(methods) < FEWEST_METHODS:
        return [], []
    rankings, of_metrics = [], []
    for metric in (name for name in METRICS if name in records.column_names):
        values = by_method(records, metric, methods)
        present = [method for method in methods if np.isfinite(values[method]).any()]
        if len(present) < FEWEST_METHODS:
            continue
        ranks = image_ranks(np.stack([values[method] for method in present], 1), METRICS[metric].lower_is_better)
        if np.isfinite(ranks[:, 0]).sum() < FEWEST_IMAGES:
            continue
        rankings.append(friedman(metric, present, ranks[np.isfinite(ranks[:, 0])]))
        if present == methods:
            of_metrics.append(ranks)
    return rankings, _mean_ranks(methods, of_metrics)


def image_ranks(values: FloatArray, lower_is_better: bool) -> FloatArray:
    """Rank the methods in every image, the best first.

    Args:
        values: (images, methods).

    Returns:
        Ranks from 1, (images, methods); NaN in all of an image where a method has no value.
    """
    better = values if lower_is_better else -values
    # The rank of a method is 1, plus 1 for each better one and 1/2 for each other equal one.
    before = (better[:, None] < better[:, :, None]).sum(2)
    equal = (better[:, None] == better[:, :, None]).sum(2)
    return np.where(np.isfinite(values).all(1, keepdims=True), before + (equal + 1) / 2, np.nan)


def friedman(metric: str, methods: Sequence[str], ranks: FloatArray) -> Ranking:
    """Test whether the methods' average ranks differ.

    The statistic is 12 n / (k (k + 1)) sum_j (R_j - (k + 1) / 2)^2, divided by 1 - sum (t^3 - t) / (n (k^3 - k)) for ties of t methods
    in an image; its p-value is that of chi-squared with k - 1 degrees of freedom (Friedman 1937; Demsar 2006, Section 3.2.2).

    Args:
        ranks: (n, k) of `image_ranks`, finite.
    """
    n, k = ranks.shape
    average = ranks.mean(0)
    # The sum of squared deviations within the images is n (k^3 - k) / 12 without ties, and smaller by sum (t^3 - t) / 12 with them.
    within = float(((ranks - (k + 1) / 2) ** 2).sum())
    between = float(n * ((average - (k + 1) / 2) ** 2).sum())
    statistic = n * (k - 1) * between / within if within else 0.0
    p = float(stats.chi2.sf(statistic, k - 1))
    order = np.argsort(average, kind="stable")
    ordered = {methods[index]: float(average[index]) for index in order}
    distance = critical_difference(k, n)
    return Ranking(metric, n, ordered, statistic, p, distance, indistinguishable(ordered, distance))


def critical_difference(methods: int, images: int) -> float:
    """Return Nemenyi's critical difference of average ranks at 5%.

    q_0.05 sqrt(k (k + 1) / (6 n)) for k methods and n images (Demsar 2006, Section 3.2.2).
    """
    return nemenyi_quantile(methods) * math.sqrt(methods * (methods + 1) / (6 * images))


@lru_cache
def nemenyi_quantile(methods: int, alpha: float = 0.05) -> float:
    """Return q_alpha of Nemenyi's test.

    It is the quantile 1 - alpha of the studentized range of k normal variables with infinite degrees of freedom, divided by sqrt(2).
    """
    return float(stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)


def indistinguishable(ranks: Mapping[str, float], distance: float) -> list[list[str]]:
    """Return the largest sets of neighbours that are less than a distance apart.

    Args:
        ranks: method -> average rank, ascending.
    """
    names, values = list(ranks), list(ranks.values())
    groups: list[list[str]] = []
    reached = 0
    for first, value in enumerate(values):
        last = max(index for index in range(first, len(values)) if values[index] - value < distance or index == first)
        if last > first and last + 1 > reached:
            groups.append(names[first : last + 1])
        reached = max(reached, last + 1)
    return groups


def _mean_ranks(methods: Sequence[str], of_metrics: Sequence[FloatArray]) -> list[MeanRank]:
    """Average ranks (images, methods) of several metrics; the best method first."""
    if not of_metrics:
        return []
    stacked = np.stack(of_metrics)
    known = np.isfinite(stacked)
    of_images = np.where(known, stacked, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
    n = int(np.isfinite(of_images[:, 0]).sum())
    if n < FEWEST_IMAGES:
        return []
    intervals = bootstrap_intervals(of_images).T.tolist()
    means = np.nanmean(of_images, 0).tolist()
    found = [MeanRank(method, mean, low, high, n) for method, mean, (low, high) in zip(methods, means, intervals, strict=True)]
    return sorted(found, key=lambda each: each.rank)
