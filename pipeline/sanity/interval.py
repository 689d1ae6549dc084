"""Mean over images with Student's 95% interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 3  # images with a value, below which there is no interval

_Z = 1.959963984540054  # 97.5% quantile of the normal distribution


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
        half = t_quantile(n - 1) * float(found.std(ddof=1)) / math.sqrt(n)
        return cls(n, mean, max(mean - half, lowest), min(mean + half, highest))


def t_quantile(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5: an expansion in 1 / freedom, 0.8% too small for 2 degrees of freedom
    and less than 0.2% for more.

    Args:
        freedom: degrees of freedom, at least 2.
    """
    z2 = _Z * _Z
    terms = (
        _Z,
        _Z * (z2 + 1) / 4,
        _Z * ((5 * z2 + 16) * z2 + 3) / 96,
        _Z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384,
        _Z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160,
    )
    return sum(term / float(freedom) ** power for power, term in enumerate(terms))
