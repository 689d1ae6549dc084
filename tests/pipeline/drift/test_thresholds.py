"""Limits of a drift: exceeded where the whole interval is, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.cli.limits import parse_limits
from pipeline.drift import Drift, DriftLimits, compare, exceeded
from pipeline.drift.summary import QUANTITIES, Statistic
from pipeline.tables.bootstrap import Estimate
from tests.support.drift_runs import edit_rows, stored_run
from tests.support.plans import refused


def drift_of(**values: Estimate) -> Drift:
    statistics = tuple(Statistic("hdm", None, quantity, values.get(quantity, Estimate(9, 0.5, 0.5, 0.5))) for quantity in QUANTITIES)
    return Drift(None, None, None, (), pa.table({}), statistics)  # type: ignore[arg-type] # limits look at the statistics alone


@pytest.mark.parametrize(
    ("name", "limit", "interval", "expected"),
    [
        ("flips", 0.1, (0.11, 0.3), "hdm: flips 0.205 (0.110 to 0.300) is above 0.1"),
        ("flips", 0.1, (0.1, 0.3), None),
        ("spearman", 0.7, (0.4, 0.69), "hdm: spearman 0.545 (0.400 to 0.690) is below 0.7"),
        ("spearman", 0.7, (0.4, 0.71), None),
        ("overlap", 0.3, (0.1, 0.2), "hdm: overlap 0.150 (0.100 to 0.200) is below 0.3"),
        ("probability", 0.1, (-0.4, -0.2), "hdm: probability -0.300 (-0.400 to -0.200) is a change of more than 0.1"),
        ("probability", 0.1, (0.2, 0.4), "hdm: probability 0.300 (0.200 to 0.400) is a change of more than 0.1"),
        ("proportion", 0.1, (-0.4, -0.2), "hdm: proportion -0.300 (-0.400 to -0.200) is worse by more than 0.1"),
        ("proportion", 0.1, (0.2, 0.4), None),
        ("deletion_auc", 0.1, (0.2, 0.4), "hdm: deletion_auc 0.300 (0.200 to 0.400) is worse by more than 0.1"),
        ("deletion_auc", 0.1, (-0.4, -0.2), None),
    ],
)
def test_a_limit_is_exceeded_where_the_whole_interval_is(
    name: str, limit: float, interval: tuple[float, float], expected: str | None
) -> None:
    low, high = interval
    found = exceeded(drift_of(**{name: Estimate(9, (low + high) / 2, low, high)}), DriftLimits.model_validate({name: limit}))
    assert found == ([] if expected is None else [expected])


def test_every_quantity_may_have_a_limit() -> None:
    assert set(DriftLimits.model_fields) == {*QUANTITIES, "by_class"}
    assert exceeded(drift_of(), DriftLimits()) == []


def test_limits_by_class(tmp_path: Path) -> None:
    drift = compare(stored_run(tmp_path, "a"), stored_run(tmp_path, "b", edit_rows({row: {"target_name": "c"} for row in (1, 3, 5)})))
    assert exceeded(drift, DriftLimits(flips=0.6)) == []
    lines = exceeded(drift, DriftLimits(flips=0.6, by_class=True))
    assert lines == [f"{method}, class b: flips 1.000 (1.000 to 1.000) is above 0.6" for method in ("hdm", "grad_cam")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flip=0.1", "--limit flip: unknown key; did you mean flips?"),
        ("flips", "write NAME=VALUE"),
        ("flips=2", "flips: input should be less than or equal to 1, not 2"),
        ("spearman=high", "spearman: input should be a valid number"),
        ("overlap=[", "overlap: input should be a valid number"),
    ],
)
def test_a_limit_that_is_none(text: str, expected: str) -> None:
    assert expected in refused(lambda: parse_limits([text], DriftLimits, "flips=0.02"))
