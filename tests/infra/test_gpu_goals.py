"""Goals of `make gpu`: each is missed by the number that is its own."""

from __future__ import annotations

from typing import Any

import pytest

from infra.gpu.goals import Goal, goals
from infra.gpu.session import NO_TIME
from infra.gpu.sizes import FULL


def measured() -> dict[str, Any]:
    """Return a result that reaches all goals."""
    method = {"float32": [1e-4, 0.999], "twice": ["float32", "bfloat16"], "statuses": {}, "singles": 0.0}
    return {
        "errors": [],
        "tests": {"rc": 0},
        "folding": {"resnet50": {"used": 4, "of": 4}, "took_s": 1.0},
        "agreement": {
            "hdm": {**method, "rounding": [0.3, 0.97], "graphs": {"float32": [0, 1], "bfloat16": [0, 1]}},
            "rise": method,
            "took_s": 2.0,
        },
        "speed": {f"{name} 64": {"of_graphed": 0.93} for name in FULL.networks},
        "throughput": {"hdm resnet50 128": 26.0},
        "memory": {"graphs": {"batch": 256, "fits": 64, "statuses": {"ok": 86}}},
        "seconds": 500.0,
    }


def missed(result: dict[str, Any]) -> list[str]:
    return [goal.text for goal in goals(result) if goal.reached is False]


def test_goals_that_are_reached() -> None:
    assert [goal.reached for goal in goals(measured())] == [True] * 13


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("tests", "rc"), 1, "exit status"),
        (("folding", "resnet50", "used"), 3, "folded copy, resnet50"),
        (("agreement", "rise", "float32"), [0.4, 0.5], "in float32"),
        (("agreement", "hdm", "float32"), [0.4, 0.91], "hdm with the CPU's maps"),  # 0.05 less than rounding leaves is allowed
        (("agreement", "hdm", "graphs", "float32"), [0.4, 0.91], "without graphs"),
        (("agreement", "rise", "twice"), ["float32"], "same bits twice"),
        (("agreement", "rise", "statuses"), {"tf32": ["nan"]}, "other statuses"),
        (("speed", "resnet50 64", "of_graphed"), 0.89, "resnet50, batch 64"),
        (("throughput", "hdm resnet50 128"), 24.9, "images per second"),
        (("memory", "graphs", "fits"), 256, "halved"),
        (("memory", "graphs", "statuses"), {"nan": 1, "ok": 85}, "halved"),
        (("errors",), ["speed: RuntimeError"], "errors"),
        (("seconds",), 541.0, "seconds"),
    ],
)
def test_a_goal_that_is_missed(path: tuple[str, ...], value: Any, text: str) -> None:
    result = measured()
    facts = result
    for key in path[:-1]:
        facts = facts[key]
    facts[path[-1]] = value
    assert [text in goal for goal in missed(result)] == [True]


def test_a_section_without_time_is_no_goal_missed() -> None:
    result = measured() | {"speed": NO_TIME, "throughput": {"hdm resnet50 128": NO_TIME}}
    assert missed(result) == []
    assert [goal.reached for goal in goals(result)].count(None) == 3


def test_a_goal_is_one_line() -> None:
    assert Goal("images per second", 26.123456, 25).line() == "reached      images per second: 26.12, goal >= 25"
    assert Goal("seconds", 541.0, 540, at_most=True).line() == "NOT REACHED  seconds: 541, goal <= 540"
    assert Goal("seconds", None, 540, at_most=True).line() == "not measured seconds: goal <= 540"
