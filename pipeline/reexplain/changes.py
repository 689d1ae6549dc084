"""Changes of images since the earlier runs, and the results to reuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pipeline.classifiers.targets import Labels
from pipeline.datasets import Sample
from pipeline.datasets.checksums import SampleChecksums
from pipeline.plan import Plan
from pipeline.reexplain.previous import PreviousRun
from pipeline.runs.reuse import NOT_REUSED, ReusePlan


@dataclass(frozen=True)
class Change:
    """State of one image relative to the earlier runs.

    Attributes:
        state: new and changed images are explained, by all or by some methods; gone ones were in the newest earlier run only.
        why: the reason, in a few words.
    """

    image_id: str
    state: Literal["new", "changed", "gone", "reused"]
    why: str


def compare(
    plan: Plan, info: dict[str, Any], checksums: Sequence[SampleChecksums | None], previous: Sequence[PreviousRun]
) -> tuple[list[Change], ReusePlan]:
    """Compare every image with the earlier runs, and choose the source of each map.

    Args:
        info: the new run's run.json.
        checksums: of the images now, None where one cannot be read.
        previous: runs to reuse, the newest first; at least one.
    """
    methods = plan.config.methods
    sources = {method: np.full((len(plan.samples), 2), NOT_REUSED, np.int64) for method in methods}
    usable = [
        (number, run, [method for method in methods if not run.method_incompatibilities(method, info)])
        for number, run in enumerate(previous)
        if not run.incompatibilities(info)
    ]
    newest = previous[0]
    reasons = newest.incompatibilities(info) or [reason for method in methods for reason in newest.method_incompatibilities(method, info)]
    by_label = plan.config.target in ("label", "wrong") or isinstance(plan.config.target, Labels)
    changes = []
    for row, (sample, now) in enumerate(zip(plan.samples, checksums, strict=True)):
        for number, run, usable_methods in usable:
            old_row = run.rows_by_checksums.get(now) if now is not None else None
            if old_row is None or (by_label and _label(run, old_row) != (sample.label, sample.class_name)):
                continue
            for method in usable_methods:
                if sources[method][row, 0] == NOT_REUSED and run.reusable[method][old_row]:
                    sources[method][row] = number, old_row
        source_runs = {int(sources[method][row, 0]) for method in methods}
        changes.append(_change(sample, now, source_runs, newest, previous, reasons, by_label))
    image_ids = {sample.image_id for sample in plan.samples}
    changes += [Change(name, "gone", f"it was in {newest.name}") for name in newest.rows if name not in image_ids]
    return changes, ReusePlan(tuple(run.store.url for run in previous), sources)


def _change(
    sample: Sample,
    now: SampleChecksums | None,
    source_runs: set[int],
    newest: PreviousRun,
    previous: Sequence[PreviousRun],
    reasons: list[str],
    by_label: bool,
) -> Change:
    old_row = newest.rows.get(sample.image_id)
    if NOT_REUSED not in source_runs:
        names = " and ".join(previous[number].name for number in sorted(source_runs))
        return Change(sample.image_id, "reused", f"from {names}" if old_row is not None else f"from {names}, where it has another id")
    if old_row is None:
        return Change(sample.image_id, "new", f"it is not in {newest.name}")
    before = newest.images[old_row]
    if now is None and before["sha256"] is None and newest.unreadable[old_row]:
        return Change(sample.image_id, "reused", "it still cannot be read")
    if now is None:
        why = "it cannot be read now"
    elif before["sha256"] is None:
        why = "it could not be read before" if newest.unreadable[old_row] else f"{newest.name} did not come to it"
    elif before["sha256"] != now.sha256:
        why = "the image has other contents"
    elif before["truth_sha256"] != now.truth_sha256:
        why = "its ground truth has other contents"
    elif by_label and _label(newest, old_row) != (sample.label, sample.class_name):
        why = "it has another label"
    else:
        why = "; ".join(reasons) or "it had failed"
    return Change(sample.image_id, "changed", why)


def _label(run: PreviousRun, row: int) -> tuple[int | None, str | None]:
    return run.images[row]["label"], run.images[row]["class_name"]
