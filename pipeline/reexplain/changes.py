"""What changed since the earlier runs, image by image, and what can therefore be taken from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.datasets import Sample
from pipeline.datasets.checksums import SampleChecksums
from pipeline.plan import Plan
from pipeline.reexplain.previous import PreviousRun
from pipeline.runs.reuse import NOT_REUSED, ReusePlan


@dataclass(frozen=True)
class Change:
    """What becomes of one image.

    Attributes:
        state: new and changed images are explained, wholly or by some methods; gone ones were in the newest earlier run.
        why: in a few words.
    """

    image_id: str
    state: Literal["new", "changed", "gone", "reused"]
    why: str


def compare(
    plan: Plan, info: dict[str, Any], seen: Sequence[SampleChecksums | None], earlier: Sequence[PreviousRun]
) -> tuple[list[Change], ReusePlan]:
    """Every image's change, and where each map is taken from.

    Args:
        info: the new run's run.json.
        seen: what the images are now, None where one cannot be read.
        earlier: runs to take from, the newest first; at least one.
    """
    methods = plan.config.methods
    places = {method: np.full((len(plan.samples), 2), NOT_REUSED, np.int64) for method in methods}
    usable = [
        (number, run, [method for method in methods if not run.method_incompatibilities(method, info)])
        for number, run in enumerate(earlier)
        if not run.incompatibilities(info)
    ]
    newest = earlier[0]
    reasons = newest.incompatibilities(info) or [reason for method in methods for reason in newest.method_incompatibilities(method, info)]
    by_label = plan.config.target == "label"
    changes = []
    for row, (sample, now) in enumerate(zip(plan.samples, seen, strict=True)):
        for number, run, there in usable:
            old = run.found.get(now) if now is not None else None
            if old is None or (by_label and _label(run, old) != (sample.label, sample.class_name)):
                continue
            for method in there:
                if places[method][row, 0] == NOT_REUSED and run.reusable[method][old]:
                    places[method][row] = number, old
        taken = {int(places[method][row, 0]) for method in methods}
        changes.append(_change(sample, now, taken, newest, earlier, reasons, by_label))
    here = {sample.image_id for sample in plan.samples}
    changes += [Change(name, "gone", f"it was in {newest.name}") for name in newest.rows if name not in here]
    return changes, ReusePlan(tuple(run.store.url for run in earlier), places)


def _change(
    sample: Sample,
    now: SampleChecksums | None,
    taken: set[int],
    newest: PreviousRun,
    earlier: Sequence[PreviousRun],
    reasons: list[str],
    by_label: bool,
) -> Change:
    old = newest.rows.get(sample.image_id)
    if NOT_REUSED not in taken:
        names = " and ".join(earlier[number].name for number in sorted(taken))
        return Change(sample.image_id, "reused", f"from {names}" if old is not None else f"from {names}, where it has another id")
    if old is None:
        return Change(sample.image_id, "new", f"it is not in {newest.name}")
    before = newest.images[old]
    if now is None and before["sha256"] is None and newest.unreadable[old]:
        return Change(sample.image_id, "reused", "it still cannot be read")
    if now is None:
        why = "it cannot be read now"
    elif before["sha256"] is None:
        why = "it could not be read before" if newest.unreadable[old] else f"{newest.name} did not come to it"
    elif before["sha256"] != now.sha256:
        why = "the image has other contents"
    elif before["truth_sha256"] != now.truth_sha256:
        why = "its ground truth has other contents"
    elif by_label and _label(newest, old) != (sample.label, sample.class_name):
        why = "it has another label"
    else:
        why = "; ".join(reasons) or "it had failed"
    return Change(sample.image_id, "changed", why)


def _label(run: PreviousRun, row: int) -> tuple[int | None, str | None]:
    return run.images[row]["label"], run.images[row]["class_name"]
