"""Verdicts of a sanity check by method and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hdm_core.sanity import TESTS
from pipeline.sanity.limits import AT_MOST
from pipeline.sanity.row import CHANCE, Row, Verdict

# Title and question of each test, in the order of the columns.
TITLES = {
    "cascading": ("cascading", "does the map change once all weights are random, from the logits down?"),
    "independent": ("independent", "does it change with each block of random weights alone?"),
    "classes": ("classes", "is the map of another class another map?"),
    "determinism": ("determinism", "does the same seed give the same bits?"),
    "repeatability": ("repeatability", "does another seed of the method give the same map?"),
    "reproducibility": ("reproducibility", "does another checkpoint give the same map?"),
    "noise": ("noise", "is the map the same for the image with a little noise?"),
    "jpeg": ("JPEG", "is it the same for the recompressed photograph?"),
    "localisation": ("localisation", "does the map lie in the annotated region more than the best control's?"),
}

_ORDER: tuple[Verdict, ...] = ("fail", "unclear", "pass", "control", "measured", "left out")  # the first that a stage has decides


@dataclass(frozen=True)
class Summary:
    """Verdict of one test of one method.

    Attributes:
        row: the stage that decides: of those with the same verdict the one that is worst.
        verdict: of that stage.
    """

    row: Row

    @property
    def verdict(self) -> Verdict:
        """Verdict of the stage that decides."""
        return self.row.verdict

    @property
    def number(self) -> str:
        """Mean with its interval, or why there is none."""
        value = self.row.value
        if value.mean is None:
            return self.row.reason
        if value.low is None or self.row.measure == "equal":
            return f"{value.mean:.3f}"
        return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"


def summarise(rows: Sequence[Row], method: str) -> dict[str, Summary]:
    """Return the summary of each test of a method."""
    found = {}
    for test in TESTS:
        stages = [row for row in rows if row.method == method and row.test == test]
        judged = [row for row in stages if row.verdict != "measured"] or stages
        if judged:
            found[test] = Summary(min(judged, key=lambda row: (_ORDER.index(row.verdict), -_excess(row))))
    return found


def chance_of(rows: Sequence[Row], method: str) -> list[Row]:
    """Return the references of a method: other images' maps, and controls'."""
    return [row for row in rows if row.method == method and row.test == CHANCE]


def _excess(row: Row) -> float:
    """Return how far a mean is beyond its limit."""
    if row.value.mean is None or row.limit is None:
        return 0.0
    return row.value.mean - row.limit if row.test in AT_MOST else row.limit - row.value.mean
