from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.audit.baselines import border_energy, drift, eigengap
from benchmarks.audit.case import intersection_over_union
from benchmarks.audit.marks import MARKS, SIDE
from benchmarks.audit.photographs import Photograph, planted
from benchmarks.audit.summary import summarise


def photographs() -> list[Photograph]:
    noise = np.random.default_rng(0).integers(0, 256, (20, SIDE, SIDE, 3), dtype=np.uint8)
    return [Photograph(f"{n}", Image.fromarray(values), (30, 40, 90, 100), "ab"[n % 2]) for n, values in enumerate(noise)]


@pytest.mark.parametrize("kind", MARKS)
def test_a_shortcut_is_planted_in_a_share_of_one_class_and_within_its_box(kind: str) -> None:
    before, after = photographs(), planted(photographs(), kind, "b", 0.3, 0)
    changes = [np.asarray(new.image, int) - np.asarray(old.image, int) for old, new in zip(before, after, strict=True)]
    changed = [number for number, change in enumerate(changes) if change.any()]
    assert len(changed) == 3
    assert {before[number].class_name for number in changed} == {"b"}
    box = MARKS[kind].box
    for number in changed:
        assert after[number].image.size == (SIDE, SIDE)
        if box is not None:
            outside = changes[number].copy()
            outside[box[1] : box[3], box[0] : box[2]] = 0
            assert not outside.any()
    if kind == "background swap":
        assert all(not changes[number][40:100, 30:90].any() for number in changed)


def test_scores_of_the_baselines_have_values_that_are_known() -> None:
    rng = np.random.default_rng(0)
    flat = np.full((20, 64), 1 / 64)
    corner = np.zeros((20, 64))
    corner[:, 0] = 1
    assert border_energy(corner, flat) == pytest.approx(1 - 28 / 64)
    noisy = rng.dirichlet(np.ones(64), 20)
    assert drift(noisy, noisy) == pytest.approx(0)
    assert drift(noisy, 1 - noisy) == pytest.approx(2)
    # Two groups far apart: two eigenvalues are 0, and then there is a gap; one group of noise has a smaller one.
    two = rng.dirichlet(np.ones(64), 40) * 0.2
    two[:20, 0] += 0.8
    two[20:, 63] += 0.8
    assert eigengap(two) > eigengap(rng.dirichlet(np.ones(64), 40))
    assert intersection_over_union((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert intersection_over_union((0, 0, 10, 10), None) == 0


def test_alarms_and_the_area_under_the_curve_are_counted_by_class() -> None:
    def line(kind: str | None, audits: list[float], named: bool) -> dict[str, object]:
        classes = [
            {
                "poisoned": kind is not None and number == 0,
                "confirmed": ["background"] if value > 1.5 else ["border"] if value > 1 else [],
                **dict.fromkeys(("audit", "eigengap", "border"), value),
                "drift": None,
            }
            for number, value in enumerate(audits)
        ]
        return {"case": {"kind": kind}, "learnt": 0.5 if kind else None, "iou": None, "named": named, "seconds": 1.0, "classes": classes}

    found = summarise(
        [line(None, [0, 1.2, 1.6], False), line("border frame", [1.3, 1.1, 0], True), line("border frame", [0, 0, 0.5], False)]
    )
    row = found.rows[0]
    assert (row.networks, row.learnt, row.confirmed, row.named) == (2, 2, 1, 1)
    # Pairs of a poisoned class (1.3, 0) and another one (1.1, 0, 0, 0.5): 4 won by 1.3; 0 draws twice and loses twice.
    assert row.auroc["audit"] == pytest.approx((4 + 1) / 8)
    assert row.auroc["drift"] is None
    assert (found.clean_classes, found.place_alarms, found.background_alarms) == (3, 1, 1)
    assert (found.other_classes, found.other_place_alarms, found.other_background_alarms) == (4, 1, 0)
