"""Wilcoxon's signed-rank test, and Holm's correction of several p-values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

EXACT_UP_TO = (
    25  # differences that are not zero; with 26 the normal approximation is within 0.007 of the exact p, and 0.002 where that is below 0.1
)

FloatArray = NDArray[np.float64]


def wilcoxon(differences: FloatArray) -> float:
    """Return the two-sided p-value of the signed-rank test.

    Differences of zero are left out (Wilcoxon's rule), and equal sizes share the mean of their ranks. Up to 25 differences that remain
    the p-value is exact: the share of all assignments of signs whose rank sum is at least as far from its mean, ties included. With
    more it is that of the normal approximation, with the variance corrected for ties and a correction of 0.5 for continuity
    (Wilcoxon 1945; Lehmann, Nonparametrics, Section 3.2).

    Args:
        differences: (images,) finite.

    Returns:
        A probability; 1 if all differences are zero.
    """
    differences = differences[differences != 0]
    n = len(differences)
    if n == 0:
        return 1.0
    ranks = mean_ranks(np.abs(differences))
    positive = float(ranks[differences > 0].sum())
    if n <= EXACT_UP_TO:
        return _exact(ranks, positive)
    # The variance of the sum of ranks whose signs are those of a fair coin; mean ranks include the correction for ties.
    deviation = math.sqrt(float((ranks**2).sum()) / 4)
    distance = max(0.0, abs(positive - n * (n + 1) / 4) - 0.5)
    return math.erfc(distance / deviation / math.sqrt(2))


def _exact(ranks: FloatArray, positive: float) -> float:
    """Return the exact two-sided p-value of a sum of positive ranks.

    Mean ranks are halves of integers, so the distribution of the doubled sum is a list of counts.
    """
    doubled = np.rint(2 * ranks).astype(int)
    counts = np.zeros(int(doubled.sum()) + 1)
    counts[0] = 1  # float64 holds the counts, at most 2^25, exactly
    for rank in doubled:
        counts[rank:] += counts[: len(counts) - rank].copy()
    observed = round(2 * positive)
    low, high = counts[: observed + 1].sum(), counts[observed:].sum()
    return float(min(1.0, 2 * min(low, high) / counts.sum()))


def mean_ranks(values: FloatArray) -> FloatArray:
    """Return the ranks of values from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: FloatArray = (last - (counts - 1) / 2)[inverse.ravel()]
    return mean


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and is no smaller than those before it. An adjusted value below alpha is a
    rejection at the family-wise error rate alpha.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    values: list[float] = adjusted.tolist()
    return values
