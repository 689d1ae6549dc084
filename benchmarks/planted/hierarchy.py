"""Benchmark of HDM's stages on planted pieces: paired differences from one stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.planted.candidates import CANDIDATES, REFERENCE, Candidate
from benchmarks.planted.piece_data import PieceData
from benchmarks.planted.piece_scores import SCORES, piece_scores
from hdm_core import Classifier, explain_with
from hdm_core.device import device_name, synchronise
from pipeline.errors import InputError, suggest

Interval = tuple[float, float]  # mean and half of the 95% interval
Show = Callable[[str], None]


@dataclass(frozen=True)
class PieceScore:
    """Scores of a candidate on the images of one kind, of all networks.

    Attributes:
        passes, seconds: per image.
        flat: images without a map, scored as a constant map.
        means: score -> mean and half of the 95% interval.
        one_stage: id of the candidate with one stage and as many passes; None for one stage itself and for other methods.
        to_one_stage, to_reference: score -> mean paired difference, this candidate minus the one with one stage or minus `faithful`, and
            half of its 95% interval; None where the other was not measured or is the same.
        ahead: score -> number of networks on which its mean is above that of `one_stage`.
    """

    candidate: str
    kind: str
    images: int
    passes: int
    seconds: float
    flat: int
    means: dict[str, Interval]
    one_stage: str | None
    to_one_stage: dict[str, Interval] | None
    to_reference: dict[str, Interval] | None
    ahead: dict[str, int] | None


@dataclass(frozen=True)
class HierarchyResult:
    """Result of the benchmark.

    Attributes:
        images: images per kind and network.
        networks: facts of each network.
        rows: one per candidate and kind.
    """

    world: str
    device: str
    images: int
    networks: list[dict[str, Any]]
    rows: list[PieceScore]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


@dataclass(frozen=True)
class _Measured:
    """Scores of one candidate on one network's images."""

    scores: dict[str, Tensor]  # (B,) each
    passes: int
    seconds: float
    flat: Tensor  # (B,) bool


def select_candidates(only: Sequence[str] | None) -> list[Candidate]:
    """Return the named candidates, all by default.

    Raises:
        InputError: for an unknown name.
    """
    if unknown := [name for name in only or () if name not in CANDIDATES]:
        raise InputError(f"no candidate {unknown[0]!r}{suggest(unknown[0], CANDIDATES)}")
    return [candidate for name, candidate in CANDIDATES.items() if only is None or name in only]


def bench_hierarchy(
    datasets: Sequence[Callable[[], PieceData]],
    selected: Sequence[Candidate],
    world: str,
    device: torch.device,
    batch: int | None = None,
    show: Show = lambda line: None,
) -> HierarchyResult:
    """Score candidates on every network, one network after the other.

    Args:
        datasets: functions that train a network and draw its images.
        world: name of the kind of images, for the record.
        batch: masked images per forward pass; None leaves it to the device.
    """
    start = time.perf_counter()
    facts, kinds, measured = [], [], []
    for make in datasets:
        data = make()
        accuracy = ", ".join(f"{kind} {data.accuracy[kind]:.1%} correct, {data.obeyed[kind]:.1%} obeyed" for kind in data.accuracy)
        show(f"[{time.perf_counter() - start:5.0f} s] {data.network}: {accuracy}")
        facts.append(data.facts())
        kinds.append(data.kinds)
        measured.append(_measure(data, selected, device, batch))
        show(f"[{time.perf_counter() - start:5.0f} s] {data.network}: {len(selected)} candidates")
    rows = [
        _row(candidate, kind, kinds, measured)
        for candidate in selected
        for kind in dict.fromkeys(kind for of_network in kinds for kind in of_network)
    ]
    images = len(kinds[0]) // len(set(kinds[0]))
    return HierarchyResult(world, device_name(device), images, facts, rows, time.perf_counter() - start)


def _measure(data: PieceData, selected: Sequence[Candidate], device: torch.device, batch: int | None) -> dict[str, _Measured]:
    """Score every candidate's maps on one network's images."""
    classifier = Classifier.from_module(data.model).to(device)
    images, labels = data.images.to(device), data.labels.to(device)
    measured = {}
    for candidate in selected:
        start = time.perf_counter()
        explanation = explain_with(classifier, images, candidate.method, candidate.settings(), labels, batch=batch)
        synchronise(device)
        seconds = time.perf_counter() - start
        flat = torch.tensor([status != "ok" for status in explanation.status])
        maps = torch.where(flat[:, None, None], 1.0, explanation.maps.cpu())
        scores = piece_scores(maps, data.regions.cpu(), data.strengths.cpu())
        measured[candidate.id] = _Measured(scores, explanation.passes, seconds / len(images), flat)
    return measured


def _row(candidate: Candidate, kind: str, kinds: Sequence[Sequence[str]], measured: Sequence[dict[str, _Measured]]) -> PieceScore:
    """Combine a candidate's scores of one kind over the networks."""
    of_kind = [torch.tensor([kind == other for other in of_network]) for of_network in kinds]

    def values(name: str, score: str) -> list[Tensor]:
        return [of_network[name].scores[score][here] for of_network, here in zip(measured, of_kind, strict=True)]

    def differences(other: str | None) -> dict[str, list[Tensor]] | None:
        if other is None or other == candidate.id or other not in measured[0]:
            return None
        return {
            score: [one - another for one, another in zip(values(candidate.id, score), values(other, score), strict=True)]
            for score in SCORES
        }

    own = [of_network[candidate.id] for of_network in measured]
    to_one, to_reference = differences(candidate.one_stage), differences(REFERENCE)
    return PieceScore(
        candidate.id,
        kind,
        int(sum(here.sum() for here in of_kind)),
        own[0].passes,
        sum(each.seconds for each in own) / len(own),
        int(sum(each.flat[here].sum() for each, here in zip(own, of_kind, strict=True))),
        {score: mean_interval(torch.cat(values(candidate.id, score))) for score in SCORES},
        candidate.one_stage,
        _intervals(to_one),
        _intervals(to_reference),
        None if to_one is None else {score: sum(bool(part.mean() > 0) for part in parts) for score, parts in to_one.items()},
    )


def _intervals(differences: dict[str, list[Tensor]] | None) -> dict[str, Interval] | None:
    return None if differences is None else {score: mean_interval(torch.cat(parts)) for score, parts in differences.items()}


def mean_interval(values: Tensor) -> Interval:
    """Return the mean and half of the normal 95% interval.

    The interval is NaN for a single value.
    `pipeline.tables.aggregate` has the same, but needs Arrow, which a machine with a GPU alone need not have.
    """
    spread = values.double().std().item() if len(values) > 1 else math.nan
    return values.double().mean().item(), 1.96 * spread / math.sqrt(len(values))
