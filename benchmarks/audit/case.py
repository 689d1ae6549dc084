"""One trained network of the benchmark: planted, explained, audited."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.audit.baselines import border_energy, drift, eigengap
from benchmarks.audit.marks import MARKS, Box
from benchmarks.audit.photographs import MIRRORED, Photograph, planted, with_mark, write_photographs
from benchmarks.audit.training import PREPROCESS, tensors, train
from hdm_core.sources.checkpoint import Card, save_checkpoint
from pipeline.audit import AuditSettings, Finding, audit_run
from pipeline.audit.energy import Energies, read_energies
from pipeline.config.load import load_config
from pipeline.execution.driver import explain_run, plan_run
from pipeline.runs import RunStore

METHOD = "grad_cam"
_LEARNT = 48  # photographs of other classes in which the shortcut is planted to see what the network does with it


@dataclass(frozen=True)
class Case:
    """A network to train.

    Attributes:
        block: number of the block of classes that the network tells apart.
        kind: of the shortcut, or None for a clean training.
        fraction: of the photographs of the class that have it.
        target: number of that class.
        seed: of the training and the choice of photographs.
    """

    block: int
    kind: str | None
    fraction: float
    target: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the case's folder, and key of its line in the results."""
        kind = (self.kind or "clean").replace(" ", "-")
        return f"{self.block}-{kind}-{round(100 * self.fraction)}-{self.target}-{self.seed}"


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class of a case; larger is more suspicious.

    Attributes:
        poisoned: the class has the shortcut.
        audit: 1 + effect of its strongest confirmed finding; else 0.5 if one could not be tested, 0.25 if it was refuted, 0 without any.
        confirmed: places that were confirmed.
        box: of its strongest finding of a place.
        eigengap, border, drift: see `baselines`; drift is None where there is no clean network.
    """

    class_name: str
    poisoned: bool
    audit: float
    confirmed: list[str]
    box: Box | None
    eigengap: float
    border: float
    drift: float | None


@dataclass(frozen=True)
class CaseResult:
    """Result of a case.

    Attributes:
        accuracy: of the training.
        learnt: mean rise of the class's probability when the shortcut is planted in photographs of other classes; None for a clean one.
        iou: of the box of the class's strongest finding with the mark; None where the mark has no box.
        named: the class has a confirmed finding at the mark's place; None where the mark has no place.
    """

    name: str
    case: Case
    accuracy: float
    learnt: float | None
    iou: float | None
    named: bool | None
    classes: list[ClassScores]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the line of the result."""
        return asdict(self)


def run_case(case: Case, photographs: Sequence[Photograph], folder: Path, epochs: int, settings: AuditSettings) -> CaseResult:
    """Train, explain and audit one network; the run stays below the folder."""
    start = time.perf_counter()
    classes = sorted({photograph.class_name for photograph in photographs})
    name = classes[case.target % len(classes)]
    own = folder / case.name
    images = planted(photographs, case.kind, name, case.fraction, case.seed)
    if (own / "facts.txt").exists():  # trained and explained before: only the audit is new
        accuracy, *rest = (float(text) for text in (own / "facts.txt").read_text().split())
        learnt = rest[0] if rest else None
        store = RunStore.open(str(own / "runs" / case.name))
    else:
        shutil.rmtree(own, ignore_errors=True)
        manifest = write_photographs(images, {each: number for number, each in enumerate(classes)}, own / "images")
        network, accuracy = train(images, classes, case.seed, epochs)
        learnt = None if case.kind is None else _learnt(network, photographs, case.kind, classes.index(name), case.seed)
        save_checkpoint(network, Card(arch="mobilenet_v2", classes=tuple(classes), preprocess=PREPROCESS), own / "network")
        store = _explain(case.name, manifest, own / "network", own / "runs")
        (own / "facts.txt").write_text(f"{accuracy} {'' if learnt is None else learnt}\n")
    energies = read_energies(store, METHOD, settings, lambda _: None)
    clean = _clean_cells(case, images, classes, folder)
    findings = audit_run(store, settings).findings
    scores = [_scores(each, each == name and case.kind is not None, findings, energies, clean) for each in classes]
    mark = None if case.kind is None else MARKS[case.kind]
    found = next((each for each in scores if each.poisoned), None)
    iou = None if mark is None or mark.box is None or found is None else intersection_over_union(mark.box, found.box)
    named = None if mark is None or mark.place is None or found is None else mark.place in found.confirmed
    return CaseResult(case.name, case, accuracy, learnt, iou, named, scores, time.perf_counter() - start)


def intersection_over_union(first: Box, second: Box | None) -> float:
    """Return the overlap of two boxes by their union; 0 without a second box."""
    if second is None:
        return 0.0
    sides = [max(0, min(first[axis + 2], second[axis + 2]) - max(first[axis], second[axis])) for axis in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    shared = sides[0] * sides[1]
    return shared / (sum(areas) - shared)


def _explain(name: str, manifest: Path, network: Path, output: Path) -> RunStore:
    config = load_config(
        {
            "name": name,
            "dataset": {"kind": "manifest", "root": str(manifest)},
            "classifier": {"source": "checkpoint", "path": str(network)},
            "methods": [METHOD],
            "metrics": {"names": ["proportion"]},
            "compute": {"executor": "local"},
            "output": str(output),
        }
    )
    plan, store = plan_run(config)
    explain_run(plan, store)
    return store


def _clean_cells(case: Case, images: Sequence[Photograph], classes: Sequence[str], folder: Path) -> Energies | None:
    """Explain the case's photographs with the first clean network of its block."""
    first = min((folder.glob(f"{case.block}-clean-*/facts.txt")), default=None)
    if case.kind is None or first is None:
        return None
    own = folder / case.name
    output = own / "clean"
    done = output / "drift" / "run.json"
    if done.exists():
        store = RunStore.open(str(output / "drift"))
    else:
        plain = [photograph for photograph in images if not photograph.name.endswith(MIRRORED)]  # half of them, to save time
        manifest = write_photographs(plain, {each: number for number, each in enumerate(classes)}, own / "clean-images")
        store = _explain("drift", manifest, first.parent / "network", output)
    return read_energies(store, METHOD, AuditSettings(), lambda _: None)


@torch.no_grad()
def _learnt(network: nn.Module, photographs: Sequence[Photograph], kind: str, target: int, seed: int) -> float:
    """Return the mean rise of the probability with the shortcut planted."""
    rng = np.random.default_rng(seed + 1)
    name = sorted({photograph.class_name for photograph in photographs})[target]
    others = [photograph for photograph in photographs if photograph.class_name != name]
    chosen = [others[number] for number in rng.permutation(len(others))[:_LEARNT]]
    before, after = (
        network(tensors(part)).softmax(1)[:, target].double().mean() for part in (chosen, [with_mark(each, kind, rng) for each in chosen])
    )
    return float(after - before)


def _scores(name: str, poisoned: bool, findings: Sequence[Finding], energies: Energies, clean: Energies | None) -> ClassScores:
    tested = [each for each in findings if each.class_name == name and each.kind in ("spatial", "background")]
    values = {True: 1.0, None: 0.5, False: 0.25}
    audit = max((values[each.confirmed] + (abs(each.effect or 0.0) if each.confirmed else 0.0) for each in tested), default=0.0)
    own = energies.cells[energies.of(name)]
    return ClassScores(
        class_name=name,
        poisoned=poisoned,
        audit=audit,
        confirmed=[each.place or "" for each in tested if each.confirmed],
        box=next((each.box for each in tested if each.box is not None), None),
        eigengap=eigengap(own),
        border=border_energy(own, energies.cells[~energies.of(name)]),
        drift=None if clean is None else _drift(name, energies, clean),
    )


def _drift(name: str, energies: Energies, clean: Energies) -> float:
    """Compare the maps of a class with those of the same images in a clean run.

    Row i of the clean run is row 2 i of the other: mirrored photographs follow their originals.
    """
    rows: NDArray[np.int64] = np.intersect1d(energies.rows[energies.of(name)], 2 * clean.rows)
    if not len(rows):
        return 0.0
    own, other = (each.cells[np.searchsorted(each.rows, of)] for each, of in ((energies, rows), (clean, rows // 2)))
    return drift(own, other)
