"""Goals that a result must reach on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.gpu.sizes import FULL

LIMIT_S = 540.0
_EFFICIENCY, _BATCH = 0.9, 64
_IMAGES_PER_S, _NETWORK = 25.0, "resnet50"
_CORRELATION = 0.95
# An optimiser amplifies rounding, the more the longer it runs: on a CPU, HDM's maps of images that differ in the seventh digit correlate by
# 0.81 to 0.95 (`fast`) or 0.94 to 0.99 (`faithful`). A GPU cannot agree better than the CPU with itself.
_LESS_THAN_ROUNDING = 0.05


@dataclass(frozen=True)
class Goal:
    """A number of the result with its limit.

    Attributes:
        value: None if it was not measured.
        at_most: the limit is an upper one.
    """

    text: str
    value: float | None
    limit: float
    at_most: bool = False

    @property
    def reached(self) -> bool | None:
        """Truth of the goal; None if it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def line(self) -> str:
        """Return the goal in a line for people."""
        word = {True: "reached", False: "NOT REACHED", None: "not measured"}[self.reached]
        number = "" if self.value is None else f"{self.value:.4g}, "
        return f"{word:12} {self.text}: {number}goal {'<=' if self.at_most else '>='} {self.limit:g}"


def goals(result: dict[str, Any]) -> list[Goal]:
    """Return all goals with the numbers of a result."""
    return [
        Goal("exit status of the tests marked gpu", _number(result, "tests", "rc"), 0, at_most=True),
        *_folding(result),
        *_agreement(result),
        *(
            Goal(
                f"engine of the graphed bare pass, {name}, batch {_BATCH}",
                _number(result, "speed", f"{name} {_BATCH}", "of_graphed"),
                _EFFICIENCY,
            )
            for name in FULL.networks
        ),
        Goal(
            f"images per second of HDM, {_NETWORK}, {max(FULL.explained)} images",
            _number(result, "throughput", f"hdm {_NETWORK} {max(FULL.explained)}"),
            _IMAGES_PER_S,
        ),
        *_memory(result),
        Goal("errors of the sections", float(len(result["errors"])), 0, at_most=True),
        Goal("seconds of all sections", result.get("seconds"), LIMIT_S, at_most=True),
    ]


def _folding(result: dict[str, Any]) -> Iterator[Goal]:
    for name, facts in _items(result, "folding"):
        yield Goal(f"photographs explained by the folded copy, {name}", facts["used"], facts["of"])


def _agreement(result: dict[str, Any]) -> Iterator[Goal]:
    methods = dict(_items(result, "agreement"))
    correlations = [facts["float32"][1] for facts in methods.values() if "rounding" not in facts]
    yield Goal("lowest correlation with the CPU's maps in float32", min(correlations, default=None), _CORRELATION)
    for name, facts in methods.items():
        if "rounding" in facts:
            limit = min(_CORRELATION, facts["rounding"][1] - _LESS_THAN_ROUNDING)
            yield Goal(f"correlation of {name} with the CPU's maps in float32", facts["float32"][1], limit)
            yield Goal(f"correlation of {name} with and without graphs in float32", facts["graphs"]["float32"][1], limit)
    twice = sum(len(facts["twice"]) == 2 for facts in methods.values()) if methods else None
    yield Goal("methods with the same bits twice, in float32 and bfloat16", twice, max(len(methods), 1))
    other = sum(len(facts["statuses"]) for facts in methods.values()) if methods else None
    yield Goal("methods and precisions with other statuses than the CPU's", other, 0, at_most=True)


def _memory(result: dict[str, Any]) -> Iterator[Goal]:
    for name, facts in _items(result, "memory"):
        halved = facts["fits"] < facts["batch"] and set(facts["statuses"]) == {"ok"}
        yield Goal(f"a batch without room is halved and gives maps, {name}", float(halved), 1)


def _items(result: dict[str, Any], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the items of a section that were measured."""
    facts = result.get(section)
    if isinstance(facts, dict):
        yield from ((name, item) for name, item in facts.items() if isinstance(item, dict))


def _number(result: Any, *path: str) -> float | None:
    """Return a number of the result; None where it is missing."""
    for key in path:
        result = result.get(key) if isinstance(result, dict) else None
    return float(result) if isinstance(result, int | float) else None
