"""Row of a sanity check: one stage of one test of one method, with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hdm_core.sanity import CASCADING, DETERMINISM, LOCALISATION, Comparison
from pipeline.sanity.limits import AT_MOST
from pipeline.tables.student import FEWEST, Interval

# pass: the whole interval is within the limit. fail: all of it is beyond. unclear: the interval holds the limit, or there are too few
# images for one. left out: the test does not apply. measured: no limit applies. control: the method knows no class.
Verdict = Literal["pass", "fail", "unclear", "left out", "measured", "control"]

CHANCE = "chance"  # rows of what maps have in common without a reason: similarity to other images' maps and to the controls'


@dataclass(frozen=True)
class Row:
    """Row of sanity.parquet.

    Attributes:
        method, test, stage: ids, and what was changed; the stage is empty for a test that was left out.
        measure: spearman, equal or proportion.
        value: its mean over the images.
        ssim: mean structural similarity; None where there is none.
        flat, failed, changed: images without a value: a constant map, a method that diverged or raised, another predicted class.
        limit: of the mean; None for none.
        reason: of a test that was left out, and of a verdict that needs one; empty for none.
    """

    method: str
    test: str
    stage: str
    verdict: Verdict
    measure: str = "spearman"
    value: Interval = field(default_factory=lambda: Interval(0))
    ssim: float | None = None
    flat: int = 0
    failed: int = 0
    changed: int = 0
    limit: float | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the columns of sanity.parquet."""
        return {
            "method": self.method,
            "test": self.test,
            "stage": self.stage,
            "measure": self.measure,
            "mean": self.value.mean,
            "low": self.value.low,
            "high": self.value.high,
            "n": self.value.n,
            "n_flat": self.flat,
            "n_failed": self.failed,
            "n_changed": self.changed,
            "ssim": self.ssim,
            "limit": self.limit,
            "verdict": self.verdict,
            "reason": self.reason,
        }


def compared_row(
    method: str, test: str, stage: str, comparison: Comparison, limit: float | None, *, is_control: bool, chance: float | None = None
) -> Row:
    """Return the row of a comparison of maps.

    Flat, NaN and failed maps are counted and enter no mean.

    Args:
        limit: of the mean; None for none.
        chance: mean similarity of the method's maps of different images.
    """
    value, structure = Interval.of(comparison.spearman), Interval.of(comparison.ssim)
    if test == DETERMINISM:  # one map with other bits is enough, so that the share has no interval
        share = Interval.of(comparison.equal)
        value = Interval(share.n, share.mean, share.mean, share.mean)
    measure = "equal" if test == DETERMINISM else "spearman"
    counts = _counts(comparison.status)
    verdict, reason = judge(test, value, limit, is_control=is_control)
    if verdict == "fail" and test == CASCADING and chance is not None and value.low is not None and value.low <= chance:
        verdict = "unclear"
        reason = f"not more alike than the method's maps of two different images, {chance:.3f}"
    if verdict == "unclear" and not value.n and comparison.error:
        reason = comparison.error
    return Row(method, test, stage, verdict, measure, value, structure.mean, *counts, limit, reason)


def localisation_row(
    method: str, control: str, values: NDArray[np.float64], status: Sequence[str], limit: float | None, *, is_control: bool
) -> Row:
    """Return the row of a method's proportion beyond that of the best control.

    Args:
        values: one difference per image with a region; NaN without a map.
        status: of the maps of these images.
    """
    value = Interval.of(values)
    verdict, reason = judge(LOCALISATION, value, limit, is_control=is_control)
    return Row(method, LOCALISATION, f"beyond {control}", verdict, "proportion", value, None, *_counts(status), limit, reason)


def left_out(method: str, test: str, reason: str) -> Row:
    """Return the row of a test that does not apply."""
    return Row(method, test, "", "left out", reason=reason)


def judge(test: str, value: Interval, limit: float | None, *, is_control: bool = False) -> tuple[Verdict, str]:
    """Return the verdict on a mean, with its reason where there is no claim.

    It fails only where the whole interval lies beyond the limit, and passes only where all of it lies within.
    """
    if limit is None:
        return "measured", ""
    if is_control:
        return "control", "knows no class: no limit applies"
    if value.low is None or value.high is None:
        return "unclear", f"{value.n} images have a value: an interval needs {FEWEST}"
    low, high = (value.low, value.high) if test in AT_MOST else (-value.high, -value.low)
    bound = limit if test in AT_MOST else -limit
    if high <= bound:
        return "pass", ""
    if low > bound:
        return "fail", ""
    return "unclear", "the interval holds the limit"


def _counts(status: Sequence[str]) -> tuple[int, int, int]:
    failed = sum(each in ("nan", "failed") for each in status)
    return sum(each == "flat" for each in status), failed, sum(each == "changed" for each in status)
