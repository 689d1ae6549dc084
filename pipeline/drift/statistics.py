"""The mean of paired differences, how sure it is, and whether chance would give it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
GROUPS = 1_000  # that are drawn from: beyond so many images several share one

_SEED = 0
_AT_ONCE = 500  # resamples that are held at the same time

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over images.

    Attributes:
        low, high: its 95% interval, percentiles of the paired bootstrap.
        p: of the sign-flip permutation test against a mean of 0, two-sided.
        n: images that have a value; without any the numbers are None.
    """

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def estimates(values: Numbers) -> list[Estimate]:
    """An estimate for each column of values (images, quantities); NaN is no value. The same values give the same numbers.

    The images are drawn, with all of an image's values together. Of more than a thousand images a thousand groups are drawn instead, dealt
    at random and of one size but for one image: drawing takes the same time for any number, and the interval's width is off by some 2%.
    """
    there = np.isfinite(values)
    sums, counts = np.where(there, values, 0.0), there.astype(np.float64)
    draw = np.random.default_rng(_SEED)
    if len(values) > GROUPS:
        group = draw.permutation(len(values)) % GROUPS
        sums, counts = _grouped(sums, group), _grouped(counts, group)
    means = np.concatenate([_divide(times @ sums, times @ counts) for times in _resamples(draw, len(sums))])
    some = there.any(0)
    ends = np.full((2, values.shape[1]), np.nan)
    if there.any():
        ends[:, some] = np.nanpercentile(means[:, some], [2.5, 97.5], axis=0)
    observed = np.abs(sums.sum(0))
    # Sums that are equal but for rounding are equal.
    as_far = sum((np.abs(signs @ sums) >= observed * (1 - 1e-9)).sum(0) for signs in _signs(draw, len(sums)))
    p = (as_far + 1.0) / (RESAMPLES + 1)
    found = zip(there.sum(0), _divide(sums.sum(0), counts.sum(0)), *ends, p, strict=True)
    return [Estimate(int(n), *(map(float, numbers) if n else ())) for n, *numbers in found]


def _grouped(values: Numbers, group: NDArray[np.int64]) -> Numbers:
    """The sums of each group's rows."""
    sums = np.zeros((GROUPS, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def _resamples(draw: np.random.Generator, size: int) -> Iterator[Numbers]:
    """How often each of so many is in each resample, (some resamples, size)."""
    first = np.arange(_AT_ONCE)[:, None] * size
    for _ in range(RESAMPLES // _AT_ONCE):
        drawn = draw.integers(size, size=(_AT_ONCE, size))
        yield np.bincount((first + drawn).ravel(), minlength=_AT_ONCE * size).reshape(_AT_ONCE, size).astype(np.float64)


def _signs(draw: np.random.Generator, size: int) -> Iterator[Numbers]:
    """-1 or 1 for each of so many, (some resamples, size)."""
    for _ in range(RESAMPLES // _AT_ONCE):
        yield (draw.integers(2, size=(_AT_ONCE, size)) * 2 - 1).astype(np.float64)


def _divide(sums: Numbers, counts: Numbers) -> Numbers:
    """Means; NaN where there is nothing."""
    means: Numbers = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return means
