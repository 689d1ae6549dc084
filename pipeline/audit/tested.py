"""Findings of suspected places and backgrounds, located and tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from hdm_core.masking.baselines import baseline_image
from pipeline.audit.background import BackgroundSuspicion
from pipeline.audit.causal import box_pixels, shows, swap_background, swap_place, tightened
from pipeline.audit.energy import Energies
from pipeline.audit.finding import Finding
from pipeline.audit.place import bounding_box, place_pixels
from pipeline.audit.settings import AuditSettings
from pipeline.audit.spatial import Suspicion, is_frame, place_name
from pipeline.audit.subject import Subject
from pipeline.runs import RunStore
from pipeline.tables.student import Interval

_EXAMPLES = 8
_CENTRE = "objects are in the middle of most photographs, so that a swap cannot tell them from a mark"


def place_finding(
    store: RunStore,
    method: str,
    energies: Energies,
    suspicion: Suspicion,
    subject: Subject | str,
    targets: Mapping[str, int | None],
    settings: AuditSettings,
) -> Finding:
    """Locate a suspected place and test it."""
    name = suspicion.class_name
    rng = np.random.default_rng(settings.seed)
    other_rows = energies.rows[~energies.of(name)]
    other_rows = rng.choice(other_rows, min(len(other_rows), 2 * settings.tested), replace=False)
    pixels = place_pixels(store, method, suspicion, other_rows)
    frame, looking = is_frame(suspicion.cells), _looking(energies, suspicion)
    place = "border" if frame else place_name(pixels)
    finding = Finding(
        name,
        "spatial",
        method,
        looking,
        f"Maps of {name} have {suspicion.share:.0%} of their energy at the {place}, those of other classes {suspicion.other_share:.0%}",
        place=place,
        box=bounding_box(pixels),
        p=suspicion.p,
        share=suspicion.share,
        examples=tuple(suspicion.rows[:_EXAMPLES].tolist()),
        rows=tuple(suspicion.rows[:looking].tolist()),
    )
    target = targets.get(name)
    if place == "centre":
        return replace(finding, reason=_CENTRE)
    if isinstance(subject, str):
        return replace(finding, reason=subject)
    if target is None:
        return replace(finding, reason="the maps compare two classes")
    _, own, _ = subject.read(suspicion.rows[: settings.tested].tolist())
    _, others, _ = subject.read(other_rows[: settings.tested].tolist())
    if not len(own) or not len(others):
        return replace(finding, reason="the images cannot be read any more")
    removed = None if settings.removal == "swap" else baseline_image(settings.removal, subject.classifier, own).expand_as(own)
    tried = torch.from_numpy(pixels).to(own.device)
    test = swap_place(subject.classifier, own, others, target, tried, settings.seed, subject.batch, removed)
    if shows(test.insertion, 1, settings.min_effect) and not frame:
        # Tightened and then tested on other pairs than those that it was found with.
        box = tightened(subject.classifier, own, others, target, bounding_box(pixels), subject.batch)
        finding, tried = replace(finding, box=box), box_pixels(box, pixels.shape).to(own.device)
        test = swap_place(subject.classifier, own, others, target, tried, settings.seed + 1, subject.batch, removed)
    return _tested(finding, test.larger, test.confirms(settings.min_effect), test.removal, test.insertion)


def background_finding(
    method: str,
    energies: Energies,
    suspicion: BackgroundSuspicion,
    subject: Subject | str,
    targets: Mapping[str, int | None],
    settings: AuditSettings,
) -> Finding:
    """Test a class that may be decided by the background."""
    name = suspicion.class_name
    text = (
        f"Maps of {name} have {suspicion.share:.0%} of their energy outside the object, those of other classes {suspicion.other_share:.0%}"
    )
    finding = Finding(
        name,
        "background",
        method,
        len(suspicion.rows),
        text,
        place="background",
        p=suspicion.p,
        share=suspicion.share,
        examples=tuple(suspicion.rows[:_EXAMPLES].tolist()),
        rows=tuple(suspicion.rows.tolist()),
    )
    target = targets.get(name)
    if isinstance(subject, str):
        return replace(finding, reason=subject)
    if target is None:
        return replace(finding, reason="the maps compare two classes")
    rng = np.random.default_rng(settings.seed)
    other_rows = energies.rows[~energies.of(name)]
    _, own, regions = subject.read(suspicion.rows[: settings.tested].tolist())
    _, others, _ = subject.read(rng.choice(other_rows, min(len(other_rows), settings.tested), replace=False).tolist())
    if not len(own) or not len(others):
        return replace(finding, reason="the images cannot be read any more")
    change = swap_background(subject.classifier, own, regions, others, target, settings.seed, subject.batch)
    return _tested(finding, change, shows(change, -1, settings.min_effect), change, None)


def _tested(finding: Finding, shown: Interval, confirmed: bool, removal: Interval, insertion: Interval | None) -> Finding:
    """Add the result of a causal test."""
    if shown.mean is None:
        return replace(finding, reason="no image has an object to compare the background with")
    interval = None if shown.low is None or shown.high is None else (shown.low, shown.high)
    ends = "" if interval is None else f" ({interval[0]:+.2f} to {interval[1]:+.2f})"
    verdict = f"; the class's probability changes by {shown.mean:+.2f}{ends}, n = {shown.n}"
    return replace(
        finding,
        confirmed=confirmed,
        effect=shown.mean,
        interval=interval,
        removal=removal.mean,
        insertion=None if insertion is None else insertion.mean,
        text=finding.text + verdict + ("" if confirmed else ": not confirmed"),
    )


def _looking(energies: Energies, suspicion: Suspicion) -> int:
    """Count the class's images with more energy at the place than 95% of others."""
    at_place = energies.cells[:, suspicion.cells.ravel()].sum(1)
    own = energies.of(suspicion.class_name)
    return int((at_place[own] > np.quantile(at_place[~own], 0.95)).sum())
