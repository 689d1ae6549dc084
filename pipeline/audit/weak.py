"""Weak explanations: flat maps, maps that are not faithful, confident mistakes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pyarrow as pa

from hdm_core import is_control, method_title
from pipeline.audit.finding import Finding
from pipeline.audit.settings import AuditSettings
from pipeline.runs import RunStore

_CONFIDENT = 0.9  # probability from which a wrong answer is a confident mistake
_EXAMPLES = 8

_COLUMNS = [
    "row",
    "method",
    "rank",
    "status",
    "target",
    "target_name",
    "label",
    "probability",
    "deletion_auc",
    "insertion_auc",
    "proportion",
]


@dataclass
class ClassMaps:
    """Counts of one class's maps.

    Attributes:
        images: explained, whatever came of it.
        flat, unfaithful, worse_than_control, mistakes: rows of the images.
        outside: sum of the shares of energy outside the annotated region, over `regions` images.
    """

    images: int = 0
    flat: list[int] = field(default_factory=list)
    unfaithful: list[int] = field(default_factory=list)
    worse_than_control: list[int] = field(default_factory=list)
    mistakes: list[tuple[float, int]] = field(default_factory=list)
    outside: float = 0.0
    regions: int = 0

    @property
    def weak(self) -> list[int]:
        """Rows with a weak map, flat ones first."""
        return list(dict.fromkeys([*self.flat, *self.unfaithful, *self.worse_than_control]))


def count_weak(store: RunStore, method: str) -> dict[str, ClassMaps]:
    """Count weak maps and confident mistakes by explained class, one shard at a time.

    A map is weak if it is flat, if its pixels inserted first give a smaller area than the same pixels deleted first, which contradicts the
    answer, or if a control of the run has the larger difference of both.
    """
    classes: dict[str, ClassMaps] = defaultdict(ClassMaps)
    for part in store.record_parts(_COLUMNS):
        _count(part, method, classes)
    return dict(classes)


def weak_findings(classes: dict[str, ClassMaps], method: str, settings: AuditSettings) -> list[Finding]:
    """Return findings about classes with many weak maps or confident mistakes."""
    findings = []
    for name, counted in classes.items():
        if counted.images < settings.min_images:
            continue
        share = len(counted.weak) / counted.images
        if share >= settings.weak_share:
            parts = [
                (len(counted.flat), "flat"),
                (len(counted.unfaithful), "against the answer"),
                (len(counted.worse_than_control), "behind a control"),
            ]
            detail = ", ".join(f"{count:,} {what}" for count, what in parts if count)
            text = f"{len(counted.weak):,} of {counted.images:,} maps of {method_title(method)} for {name} are weak: {detail}"
            weak = tuple(counted.weak)
            findings.append(Finding(name, "weak", method, len(weak), text, share=share, examples=weak[:_EXAMPLES], rows=weak))
        wrong = len(counted.mistakes) / counted.images
        if wrong >= settings.weak_share:
            rows = tuple(row for _, row in sorted(counted.mistakes, reverse=True))
            of_all = f"{len(counted.mistakes):,} of {counted.images:,}"
            text = f"{of_all} images answered with {name} are confident mistakes (above {_CONFIDENT:.0%})"
            findings.append(
                Finding(name, "weak", method, len(counted.mistakes), text, share=wrong, examples=rows[:_EXAMPLES], rows=rows, mistakes=True)
            )
    return findings


def _count(part: pa.Table, method: str, classes: dict[str, ClassMaps]) -> None:
    controls: dict[int, float] = {}
    own = []
    for row in part.to_pylist():
        if row["rank"] == 0 and row["method"] == method:
            own.append(row)
        elif row["rank"] == 0 and is_control(row["method"]) and (gap := _gap(row)) is not None:
            controls[row["row"]] = max(gap, controls.get(row["row"], gap))
    for row in own:
        if row["target_name"] is None:
            continue
        counted = classes[row["target_name"]]
        counted.images += 1
        if row["status"] == "flat":
            counted.flat.append(row["row"])
        gap = _gap(row)
        if gap is not None and gap < 0:
            counted.unfaithful.append(row["row"])
        elif gap is not None and gap < controls.get(row["row"], gap):
            counted.worse_than_control.append(row["row"])
        if row["label"] is not None and row["label"] != row["target"] and (row["probability"] or 0) >= _CONFIDENT:
            counted.mistakes.append((row["probability"], row["row"]))
        if row["proportion"] is not None:
            counted.outside += 1 - row["proportion"]
            counted.regions += 1


def _gap(row: dict[str, float | None]) -> float | None:
    """Return insertion minus deletion; None where they were not measured."""
    insertion, deletion = row["insertion_auc"], row["deletion_auc"]
    return None if insertion is None or deletion is None else insertion - deletion
