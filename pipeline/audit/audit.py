"""Audit of a run: suspicions from maps and records, proved with forward passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METHODS, is_control, method_title
from pipeline.audit.alike_findings import alike_findings
from pipeline.audit.background import background_suspicions, shares_outside
from pipeline.audit.background_findings import background_findings
from pipeline.audit.columns import manifest_columns
from pipeline.audit.energy import Energies, read_energies
from pipeline.audit.finding import Finding
from pipeline.audit.groups import cluster_maps, clusters_table, group_findings
from pipeline.audit.pool import read_pool
from pipeline.audit.settings import AuditSettings
from pipeline.audit.spatial import suspicions
from pipeline.audit.subject import open_subject
from pipeline.audit.tested import Tester, corrected, merged, place_finding
from pipeline.audit.weak import count_weak, weak_findings
from pipeline.errors import InputError, suggest
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.runs import RunStore


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
    """Look for shortcuts, groups and weak maps in the finished shards of a run.

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
    read, images = 0, store.metadata()["images"]

    def on_read(count: int) -> None:
        nonlocal read
        read += count
        on_progress(Progress(read, images, "maps"))

    energies = read_energies(store, method, settings, on_read)
    notes = _notes(energies, method, settings)
    tested = 0

    def on_class(count: int) -> None:
        nonlocal tested
        tested += count
        on_progress(Progress(tested, len(energies.sizes), "classes"))

    places = suspicions(energies, settings, on_class)
    outside = shares_outside(store, method)
    backgrounds = background_suspicions(outside, settings)
    tester: Tester | str = "it was not asked for"
    if causal and len(energies.sizes) > 1:
        tester = _tester(store, method, energies, settings)
    if isinstance(tester, str) and causal and (places or backgrounds):
        notes.append(f"Causal tests are left out: {tester}.")
    compared = 0

    def on_compared(count: int) -> None:
        nonlocal compared
        compared += count
        on_progress(Progress(compared, len(energies.sizes), "classes whose images were compared"))

    found = [place_finding(store, method, energies, each, tester, settings) for each in places]
    alike = [] if isinstance(tester, str) else alike_findings(energies, method, tester, on_compared)
    findings = merged(found, alike) + background_findings(method, outside, backgrounds, tester)
    findings = corrected(findings)
    clusters = cluster_maps(energies, settings)
    findings += group_findings(energies, clusters, _images(store, energies.rows), method, settings)
    findings += weak_findings(count_weak(store, method), method, settings)
    findings.sort(key=lambda finding: finding.strength, reverse=True)
    classes = sum(energies.of(name).sum() >= settings.min_images for name in energies.sizes)
    return Audit(
        store, settings, method, len(energies.rows), int(classes), tuple(notes), tuple(findings), clusters_table(energies, clusters)
    )


def _method_of(store: RunStore, method: str | None) -> str:
    methods: list[str] = store.metadata()["config"]["methods"]
    if method is None:
        return next((name for name in methods if name not in METHODS or not is_control(name)), methods[0])
    if method not in methods:
        raise InputError(f"{store.url} has no maps of {method}{suggest(method, methods, list_all=True)}")
    return method


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


def _tester(store: RunStore, method: str, energies: Energies, settings: AuditSettings) -> Tester | str:
    subject = open_subject(store)
    if isinstance(subject, str):
        return subject
    pool = read_pool(subject, energies, settings)
    return Tester(subject, pool, _targets(store, method), settings) if len(pool.names) else "the images cannot be read any more"


def _targets(store: RunStore, method: str) -> dict[str, int | None]:
    """Return class name -> number of the class; None where two are compared."""
    targets: dict[str, int | None] = {}
    for part in store.record_parts(["method", "rank", "target", "target_name", "contrast"]):
        chosen = part.filter(pc.and_(pc.equal(part["method"], method), pc.and_(pc.equal(part["rank"], 0), pc.is_valid(part["target"]))))
        for row in (
            chosen.select(["target", "target_name", "contrast"]).group_by(["target", "target_name", "contrast"]).aggregate([]).to_pylist()
        ):
            targets[row["target_name"]] = row["target"] if row["contrast"] is None else None
    return targets


def _images(store: RunStore, rows: NDArray[np.int64]) -> Mapping[int, Mapping[str, Any]]:
    columns = manifest_columns(store)
    chosen = store.images().take(pa.array(rows)).to_pylist()
    return {row["row"]: row | {"manifest": columns.get(row["image_id"], {})} for row in chosen}
