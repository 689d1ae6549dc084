"""Audit of a run: suspicions from maps and records, proved with forward passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from hdm_core import METHODS, is_control, method_title
from pipeline.audit.background import BackgroundSuspicion, background_suspicions, shares_outside
from pipeline.audit.causal import Change, box_pixels, swap_background, swap_place, tightened
from pipeline.audit.energy import Energies, read_energies
from pipeline.audit.finding import Finding
from pipeline.audit.groups import cluster_maps, clusters_table, group_findings
from pipeline.audit.place import bounding_box, place_pixels
from pipeline.audit.settings import AuditSettings
from pipeline.audit.spatial import Suspicion, is_frame, place_name, suspicions
from pipeline.audit.subject import Subject, open_subject
from pipeline.audit.weak import count_weak, weak_findings
from pipeline.errors import InputError, suggest
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.runs import RunStore

_EXAMPLES = 8
_CENTRE = "objects are in the middle of most photographs, so that a swap cannot tell them from a mark"


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        method: whose maps were read.
        images: whose maps were read.
        classes: that were tested, of those that are explained.
        notes: one sentence for everything that was left out, and why.
        findings: the strongest first.
        clusters: rows of audit/clusters.parquet.
    """

    store: RunStore
    settings: AuditSettings
    method: str
    images: int
    classes: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    clusters: pa.Table


def audit_run(
    store: RunStore,
    settings: AuditSettings | None = None,
    method: str | None = None,
    causal: bool = True,
    on_progress: ProgressCallback = no_progress,
) -> Audit:
    """Look for shortcuts, groups and weak explanations in the finished shards of a run.

    Args:
        method: whose maps are read; the run's first that is no control if None.
        causal: prove suspected places with forward passes of the run's classifier.

    Raises:
        InputError: if no shard is finished, or the run has no such method.
    """
    settings = settings or AuditSettings()
    method = _method_of(store, method)
    if not store.done():
        raise InputError(f"{store.url}: no shard is finished yet, so that there is nothing to audit; hdm run continues the run")
    read = 0

    def on_read(count: int) -> None:
        nonlocal read
        read += count
        on_progress(Progress(read, max(read, store.metadata()["images"]), "maps"))

    energies = read_energies(store, method, settings, on_read)
    notes = _notes(energies, method, settings)
    tested = 0

    def on_class(count: int) -> None:
        nonlocal tested
        tested += count
        on_progress(Progress(tested, len(energies.sizes), "classes"))

    places = suspicions(energies, settings, on_class)
    backgrounds = background_suspicions(shares_outside(store, method), settings)
    subject: Subject | str = "it was not asked for"
    if causal and (places or backgrounds):
        subject = open_subject(store)
    if isinstance(subject, str) and causal and (places or backgrounds):
        notes.append(f"Causal tests are left out: {subject}.")
    targets = _targets(store, method)
    findings = [_place_finding(store, method, energies, each, subject, targets, settings) for each in places]
    findings += [_background_finding(method, energies, each, subject, targets, settings) for each in backgrounds]
    clusters = cluster_maps(energies, settings)
    findings += group_findings(energies, clusters, _images(store, energies.rows), method, settings)
    findings += weak_findings(count_weak(store, method), method, settings)
    findings.sort(key=lambda finding: finding.strength, reverse=True)
    classes = sum(energies.of(name).sum() >= settings.min_images for name in energies.sizes)
    return Audit(
        store, settings, method, len(energies.rows), int(classes), tuple(notes), tuple(findings), clusters_table(energies, clusters)
    )


def _method_of(store: RunStore, method: str | None) -> str:
    methods = store.metadata()["config"]["methods"]
    if method is None:
        return next((name for name in methods if name not in METHODS or not is_control(name)), methods[0])
    if method not in methods:
        raise InputError(f"{store.url} has no maps of {method}{suggest(method, methods, list_all=True)}")
    return str(method)


def _notes(energies: Energies, method: str, settings: AuditSettings) -> list[str]:
    if not len(energies.rows):
        return [f"No map of {method_title(method)} has any content: all are flat or failed."]
    notes = []
    if len(energies.sizes) == 1:
        notes.append("Only one class is explained, and places are compared between classes: none was tested.")
    if few := [name for name, size in energies.sizes.items() if size < settings.min_images]:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5:,} more" if len(few) > 5 else "")
        notes.append(f"Too few images for a test, fewer than {settings.min_images}: {shown}.")
    return notes


def _targets(store: RunStore, method: str) -> dict[str, int | None]:
    """Return class name -> number of the class; None where it is compared with another class."""
    targets: dict[str, int | None] = {}
    for part in store.record_parts(["method", "rank", "target", "target_name", "contrast"]):
        chosen = part.filter(pc.and_(pc.equal(part["method"], method), pc.and_(pc.equal(part["rank"], 0), pc.is_valid(part["target"]))))
        for row in (
            chosen.select(["target", "target_name", "contrast"]).group_by(["target", "target_name", "contrast"]).aggregate([]).to_pylist()
        ):
            targets[row["target_name"]] = row["target"] if row["contrast"] is None else None
    return targets


def _images(store: RunStore, rows: NDArray[np.int64]) -> Mapping[int, Mapping[str, Any]]:
    return {row["row"]: row for row in store.images().take(pa.array(rows)).to_pylist()}


def _place_finding(
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
        f"maps of {name} have {suspicion.share:.0%} of their energy at the {place}, those of other classes {suspicion.other_share:.0%}",
        place=place,
        box=bounding_box(pixels),
        p=suspicion.p,
        share=suspicion.share,
        examples=tuple(suspicion.rows[:_EXAMPLES].tolist()),
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
    tried = torch.from_numpy(pixels).to(own.device)
    test = swap_place(subject.classifier, own, others, target, tried, settings.seed, subject.batch)
    if test.insertion.shows(1, settings.min_effect) and not frame:
        # Tightened and then tested on other pairs than those that it was found with.
        box = tightened(subject.classifier, own, others, target, bounding_box(pixels), subject.batch)
        finding, tried = replace(finding, box=box), box_pixels(box, pixels.shape).to(own.device)
        test = swap_place(subject.classifier, own, others, target, tried, settings.seed + 1, subject.batch)
    return _tested(finding, test.larger, test.confirms(settings.min_effect), test.removal, test.insertion)


def _background_finding(
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
        f"maps of {name} have {suspicion.share:.0%} of their energy outside the object, those of other classes {suspicion.other_share:.0%}"
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
    return _tested(finding, change, change.shows(-1, settings.min_effect), change, None)


def _tested(finding: Finding, shown: Change, confirmed: bool, removal: Change, insertion: Change | None) -> Finding:
    """Add the result of a causal test."""
    verdict = f"; the class's probability changes by {shown.mean:+.2f} ({shown.low:+.2f} to {shown.high:+.2f}), n = {shown.images}"
    return replace(
        finding,
        confirmed=confirmed,
        effect=shown.mean,
        interval=None if shown.images < 2 else (shown.low, shown.high),
        removal=removal.mean,
        insertion=None if insertion is None else insertion.mean,
        text=finding.text + verdict + ("" if confirmed else ": not confirmed"),
    )


def _looking(energies: Energies, suspicion: Suspicion) -> int:
    """Count the images of a class with more energy at the place than 95% of the other classes' images."""
    at_place = energies.cells[:, suspicion.cells.ravel()].sum(1)
    own = energies.of(suspicion.class_name)
    return int((at_place[own] > np.quantile(at_place[~own], 0.95)).sum())
