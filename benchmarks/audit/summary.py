"""Table of the benchmark: one row per kind of shortcut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.audit.marks import MARKS

SCORES = ("audit", "eigengap", "border", "drift")
_LEARNT = 0.1  # mean rise of the probability from which a network uses the shortcut
WITH_PLACE = "all kinds with a place"


@dataclass(frozen=True)
class KindRow:
    """Results of one kind of shortcut.

    Attributes:
        networks: trained with it.
        learnt: of these, that use it: planted elsewhere it raises the class's probability by at least 0.1 on average.
        auroc: score -> area under the ROC curve of the poisoned class among all classes of these networks; None where it was not measured.
        confirmed: networks whose poisoned class has a confirmed finding, at any place.
        named: of these, at the place of the mark.
        iou: mean overlap of the box with the mark; None where the mark has no box.
    """

    kind: str
    networks: int
    learnt: int
    auroc: dict[str, float | None]
    confirmed: int
    named: int
    iou: float | None


@dataclass(frozen=True)
class AuditSummary:
    """Summary of the networks.

    Attributes:
        rows: one per kind, then the kinds with a place together; and once more only the networks that use the shortcut.
        clean_classes: of clean networks.
        place_alarms, background_alarms: of these, with a confirmed place, and a confirmed background.
        other_classes, other_place_alarms, other_background_alarms: the same for classes without the shortcut, of networks with one.
    """

    rows: list[KindRow]
    clean_classes: int
    place_alarms: int
    background_alarms: int
    other_classes: int
    other_place_alarms: int
    other_background_alarms: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the summary."""
        return asdict(self)


def summarise(chosen: Sequence[Mapping[str, Any]]) -> AuditSummary:
    """Summarise the lines of the results."""
    rows = [_row(kind, of_kind) for kind in MARKS if (of_kind := [each for each in chosen if each["case"]["kind"] == kind])]
    placed = [each for each in chosen if each["case"]["kind"] is not None and MARKS[each["case"]["kind"]].place is not None]
    if placed:
        rows.append(_row(WITH_PLACE, placed))
    if used := [each for each in placed if each["learnt"] >= _LEARNT]:
        rows.append(_row(f"{WITH_PLACE}, that the network uses", used))
    clean = [each for result in chosen if result["case"]["kind"] is None for each in result["classes"]]
    others = [each for result in chosen if result["case"]["kind"] is not None for each in result["classes"] if not each["poisoned"]]
    return AuditSummary(
        rows,
        len(clean),
        *_alarms(clean),
        len(others),
        *_alarms(others),
        sum(result["seconds"] for result in chosen),
    )


def _alarms(classes: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Count classes with a confirmed place, and with a confirmed background."""
    places = sum(any(place != "background" for place in each["confirmed"]) for each in classes)
    return places, sum("background" in each["confirmed"] for each in classes)


def _row(kind: str, results: Sequence[Mapping[str, Any]]) -> KindRow:
    classes = [each for result in results for each in result["classes"]]
    poisoned = [each["poisoned"] for each in classes]
    overlaps = [result["iou"] for result in results if result["iou"] is not None]
    return KindRow(
        kind,
        len(results),
        sum(result["learnt"] >= _LEARNT for result in results),
        {name: _auroc(poisoned, [each[name] for each in classes]) for name in SCORES},
        sum(bool(each["confirmed"]) for each in classes if each["poisoned"]),
        sum(result["named"] is True for result in results),
        float(np.mean(overlaps)) if overlaps else None,
    )


def _auroc(poisoned: Sequence[bool], scores: Sequence[float | None]) -> float | None:
    pairs = [(label, score) for label, score in zip(poisoned, scores, strict=True) if score is not None]
    if len({label for label, _ in pairs}) < 2:
        return None
    return float(roc_auc_score([label for label, _ in pairs], [score for _, score in pairs]))
