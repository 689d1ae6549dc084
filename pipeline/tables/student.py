"""Mean over images with Student's 95% interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

FEWEST = 3  # images with a value, below which there is no interval


@dataclass(frozen=True)
class Interval:
    """Mean over images with its 95% interval.

    Attributes:
        n: images with a value.
        mean: None without such an image.
        low, high: None with fewer than 3 of them.
    """

    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: NDArray[np.floating], lowest: float = -1.0, highest: float = 1.0) -> Interval:
        """Compute the mean of the finite values, and mean -+ t s / sqrt(n).

        The few images of a check are why it is Student's t and no bootstrap, whose intervals of ten images are too narrow.

        Args:
            values: one per image; NaN for none.
            lowest, highest: possible values, at which the interval is cut off.
        """
        found = values[np.isfinite(values)].astype(np.float64)
        n = len(found)
        if n == 0:
            return cls(0)
        mean = float(found.mean())
        if n < FEWEST:
            return cls(n, mean)
        half = float(stats.t.ppf(0.975, n - 1)) * float(found.std(ddof=1)) / math.sqrt(n)
        return cls(n, mean, max(mean - half, lowest), min(mean + half, highest))
