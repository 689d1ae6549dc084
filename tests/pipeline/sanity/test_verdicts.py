"""Intervals and verdicts of the sanity checks."""

from __future__ import annotations

import numpy as np
import pytest

from hdm_core.sanity import Comparison
from pipeline.cli.limits import parse_limits
from pipeline.sanity import SanityLimits
from pipeline.sanity.row import Row, compared_row, judge, left_out
from pipeline.sanity.summary import summarise
from pipeline.tables.student import Interval
from tests.support.plans import refused


def compared(*spearman: float, equal: tuple[float, ...] = (), status: tuple[str, ...] = ()) -> Comparison:
    values = np.array(spearman)
    return Comparison(values, values, np.array(equal or spearman), status or ("ok",) * len(spearman), "")


def test_an_interval_is_that_of_student() -> None:
    found = Interval.of(np.array([0.2, np.nan, 0.4, 0.3, 0.5]))
    assert (found.n, found.mean) == (4, pytest.approx(0.35))
    half = 3.182446 * np.std([0.2, 0.4, 0.3, 0.5], ddof=1) / 2
    assert (found.low, found.high) == (pytest.approx(0.35 - half), pytest.approx(0.35 + half))


def test_an_interval_is_cut_off_at_the_possible_values_and_needs_three_images() -> None:
    assert Interval.of(np.array([0.9, 1.0, 0.2])).high == 1
    assert Interval.of(np.array([0.9, 0.1])) == Interval(2, 0.5)
    assert Interval.of(np.array([np.nan])) == Interval(0)


@pytest.mark.parametrize(
    ("test", "low", "high", "limit", "verdict"),
    [
        ("cascading", 0.1, 0.5, 0.5, "pass"),
        ("cascading", 0.4, 0.6, 0.5, "unclear"),
        ("cascading", 0.51, 0.6, 0.5, "fail"),
        ("noise", 0.7, 0.9, 0.7, "pass"),
        ("noise", 0.6, 0.8, 0.7, "unclear"),
        ("noise", 0.5, 0.69, 0.7, "fail"),
        ("noise", 0.5, 0.69, None, "measured"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(test: str, low: float, high: float, limit: float | None, verdict: str) -> None:
    assert judge(test, Interval(9, (low + high) / 2, low, high), limit)[0] == verdict


def test_too_few_images_make_no_claim() -> None:
    assert judge("noise", Interval(2, 0.1), 0.7) == ("unclear", "2 images have a value: an interval needs 3")


def test_no_limit_applies_to_a_control() -> None:
    assert judge("cascading", Interval(9, 1.0, 1.0, 1.0), 0.5, is_control=True)[0] == "control"


def test_one_map_with_other_bits_breaks_determinism() -> None:
    row = compared_row("m", "determinism", "same seed", compared(*[1.0] * 9, equal=(1,) * 8 + (0,)), 1.0, is_control=False)
    assert (row.verdict, row.measure, row.value.mean) == ("fail", "equal", pytest.approx(8 / 9))


def test_a_random_network_that_is_no_more_alike_than_other_images_makes_no_claim() -> None:
    maps = compared(0.7, 0.71, 0.72)
    row = compared_row("m", "cascading", "6 of 6: a", maps, 0.5, is_control=False, chance=0.75)
    assert (row.verdict, row.reason) == ("unclear", "not more alike than the method's maps of two different images, 0.750")
    assert compared_row("m", "cascading", "6 of 6: a", maps, 0.5, is_control=False, chance=0.2).verdict == "fail"


def test_flat_failed_and_changed_maps_are_counted() -> None:
    nan = np.nan
    maps = compared(0.9, nan, nan, nan, nan, 0.8, 1.0, status=("ok", "flat", "failed", "nan", "changed", "ok", "ok"))
    row = compared_row("m", "noise", "sigma 0.01", maps, 0.7, is_control=False)
    assert (row.value.n, row.flat, row.failed, row.changed) == (3, 1, 2, 1)
    assert row.value.mean == pytest.approx(0.9)


def test_the_stage_that_is_worst_decides() -> None:
    def row(stage: str, verdict: str, mean: float, limit: float | None = 0.7) -> Row:
        return Row("m", "noise", stage, verdict, value=Interval(9, mean, mean, mean), limit=limit)  # type: ignore[arg-type]

    rows = [
        row("a", "pass", 0.9),
        row("b", "fail", 0.5),
        row("c", "fail", 0.3),
        row("d", "measured", 0.0, None),
        left_out("m", "jpeg", "why"),
    ]
    found = summarise(rows, "m")
    assert found["noise"].row.stage == "c"
    assert found["jpeg"].number == "why"
    assert summarise(rows[:1], "m")["noise"].number == "0.900 (0.900 to 0.900)"


def test_limits_are_parsed_and_refused_in_one_line() -> None:
    limits = parse_limits(["noise=0.5", "classes=null"], SanityLimits, "noise=0.5")
    assert (limits.noise, limits.classes, limits.cascading) == (0.5, None, 0.5)
    assert "did you mean cascading" in refused(lambda: parse_limits(["cascade=1"], SanityLimits, "noise=0.5"))
    assert "such as --limit noise=0.5" in refused(lambda: parse_limits(["noise"], SanityLimits, "noise=0.5"))
    assert "less than or equal to 1" in refused(lambda: parse_limits(["noise=2"], SanityLimits, "noise=0.5"))
