"""Means over images with bootstrap intervals and permutation tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
GROUPS = 1_000  # with more images than this, several share one group, and groups are resampled

_SEED = 0
_BATCH_SIZE = 500  # resamples held in memory at the same time

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """Mean over images with its uncertainty.

    Attributes:
        n: images that have a value; if there are none, the other fields are None.
        low, high: ends of the 95% interval, percentiles of the paired bootstrap.
        p: p-value of the two-sided sign-flip permutation test against a mean of 0.
    """

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def estimates(values: FloatArray) -> list[Estimate]:
    """Estimate the mean of each column of `values`, deterministically.

    Images are resampled, with all values of an image together. More than 1,000 images are first dealt at random into 1,000 groups
    whose sizes differ by at most one, and the groups are resampled: the time no longer depends on the number of images, and the
    width of the interval is off by about 2%.

    Args:
        values: (images, quantities); NaN means no value.
    """
    rng = np.random.default_rng(_SEED)
    sums, counts = _units(values, rng)
    interval = _interval(sums, counts, rng)
    observed = np.abs(sums.sum(0))
    # The tolerance treats sums that differ only by rounding as equal.
    at_least_as_extreme = sum((np.abs(signs @ sums) >= observed * (1 - 1e-9)).sum(0) for signs in _signs(rng, len(sums)))
    p = (at_least_as_extreme + 1.0) / (RESAMPLES + 1)
    columns = zip(counts.sum(0), _mean(sums.sum(0), counts.sum(0)), *interval, p, strict=True)
    return [Estimate(int(n), *(map(float, numbers) if n else ())) for n, *numbers in columns]


def bootstrap_intervals(values: FloatArray) -> FloatArray:
    """Return the 95% intervals of the columns' means, (2, quantities).

    They are those of `estimates`. An interval is NaN where fewer than two images have a value: one image says nothing of the spread.

    Args:
        values: (images, quantities); NaN means no value.
    """
    rng = np.random.default_rng(_SEED)
    interval = _interval(*_units(values, rng), rng)
    interval[:, np.isfinite(values).sum(0) < 2] = np.nan
    return interval


def _units(values: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return sums and counts of what is resampled, images or groups of images."""
    valid = np.isfinite(values)
    sums, counts = np.where(valid, values, 0.0), valid.astype(np.float64)
    if len(values) > GROUPS:
        group = rng.permutation(len(values)) % GROUPS
        sums, counts = _sum_groups(sums, group), _sum_groups(counts, group)
    return sums, counts


def _interval(sums: FloatArray, counts: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the percentiles 2.5 and 97.5 of the resampled means, NaN without a value."""
    interval = np.full((2, sums.shape[1]), np.nan)
    has_values = counts.any(0)
    means = np.concatenate([_mean(draws @ sums, draws @ counts) for draws in _resamples(rng, len(sums))])
    if has_values.any():
        interval[:, has_values] = np.nanpercentile(means[:, has_values], [2.5, 97.5], axis=0)
    return interval


def _sum_groups(values: FloatArray, group: NDArray[np.int64]) -> FloatArray:
    """Sum the rows of each group."""
    sums = np.zeros((GROUPS, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def _resamples(rng: np.random.Generator, size: int) -> Iterator[FloatArray]:
    """Yield batches of (resamples, size): the number of times each unit was drawn."""
    offsets = np.arange(_BATCH_SIZE)[:, None] * size
    for _ in range(RESAMPLES // _BATCH_SIZE):
        drawn = rng.integers(size, size=(_BATCH_SIZE, size))
        yield np.bincount((offsets + drawn).ravel(), minlength=_BATCH_SIZE * size).reshape(_BATCH_SIZE, size).astype(np.float64)


def _signs(rng: np.random.Generator, size: int) -> Iterator[FloatArray]:
    """Yield batches of (resamples, size) random signs, -1 or 1."""
    for _ in range(RESAMPLES // _BATCH_SIZE):
        yield (rng.integers(2, size=(_BATCH_SIZE, size)) * 2 - 1).astype(np.float64)


def _mean(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Divide sums by counts; NaN where the count is 0."""
    means: FloatArray = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means
