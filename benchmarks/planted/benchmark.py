"""Methods against evidence that is known by construction: do their maps show what decided?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.planted.images import KINDS, PATCH, SIDE, PlantedImages, plant
from benchmarks.planted.network import STEPS, is_correct, build_network, train
from benchmarks.planted.scores import both_found, pointing, similarity
from hdm_core import METHODS, Classifier, Explanation, explain_with
from hdm_core.metrics.localisation import proportion
from pipeline.errors import InputError
from pipeline.tables.aggregate import interval

# What differs from the methods' defaults: fewer masks, and Mask's lengths, which are meant for 224 pixels, for 64.
CHANGES: dict[str, dict[str, Any]] = {"rise": {"masks": 1000}, "mask": {"cell": 2, "blur": 1.5, "jitter": 2}}
CHANCE = "chance"
_HELD_OUT = 200  # pictures of a kind

Interval = tuple[float, float]  # mean and half of the 95% interval


@dataclass(frozen=True)
class PlantedScore:
    """What a method came to; every score is a mean over pictures and half of its 95% interval.

    Attributes:
        method: its id, or "chance": maps of random blobs.
        changed: the settings that are not the method's defaults.
        flat: pictures without a map, scored as a map that is the same everywhere.
        energy: share of the map's sum inside the evidence; by kind, too.
        pointing: 1 where the map is largest inside the evidence.
        redundant, joint: 1 where both patches were found.
        randomised: Spearman's correlation with the map of a network with random weights; None for chance, which has no network.
    """

    method: str
    changed: dict[str, Any]
    passes: int
    seconds: float
    flat: int
    energy: Interval
    energy_by_kind: dict[str, Interval]
    pointing: Interval
    redundant: Interval
    joint: Interval
    randomised: Interval | None


@dataclass(frozen=True)
class PlantedResult:
    """The bench's result.

    Attributes:
        images: pictures of each kind.
        accuracy: on held-out pictures of the three kinds.
        obeyed: share of those on which the network keeps the rule also when patches are taken out.
        area: share of the pixels that is evidence: the energy of a flat map.
        rows: a method each, chance last.
    """

    images: int
    seed: int
    accuracy: float
    obeyed: float
    area: float
    training_seconds: float
    rows: list[PlantedScore]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class PlantedData:
    """The pictures of all kinds, those of a kind in a row, and the network that they are explained for."""

    planted: PlantedImages
    kinds: list[str]
    model: torch.nn.Sequential
    accuracy: float
    obeyed: float


def make_data(images: int, seed: int, steps: int = STEPS) -> PlantedData:
    """Trains the network and draws so many pictures of each kind, all of them such that the network keeps their rule.

    Raises:
        InputError: if the network did not learn the rule well enough to be asked for it.
    """
    model, generator = train(seed, steps), torch.Generator().manual_seed(seed + 1_000_000)
    chosen, right, kept = [], [], []
    for kind in KINDS:
        drawn = plant(kind, max(_HELD_OUT, 2 * images), generator)
        with torch.no_grad():
            right.append(model(drawn.images).argmax(1) == drawn.labels)
        kept.append(is_correct(model, drawn))
        if kept[-1].sum() < images:
            raise InputError(f"the network keeps the rule on {int(kept[-1].sum())} of {len(drawn)} pictures ({kind}): take another --seed")
        chosen.append(drawn[kept[-1].nonzero()[:images, 0]])
    planted = PlantedImages(*(torch.cat(parts) for parts in zip(*(vars(part).values() for part in chosen), strict=True)))
    kinds: list[str] = [kind for kind in KINDS for _ in range(images)]
    return PlantedData(planted, kinds, model, *(float(torch.cat(flags).double().mean()) for flags in (right, kept)))


def bench_truth(
    images: int, seed: int, only: Sequence[str] | None = None, show: Callable[[str], None] = lambda line: None
) -> tuple[PlantedResult, PlantedData, dict[str, Tensor]]:
    """Measures methods, all if `only` names none: the result, the pictures and each method's maps (N, 64, 64).

    Raises:
        InputError: for an unknown method, or a network that did not learn.
    """
    if unknown := [name for name in only or () if name not in METHODS]:
        raise InputError(f"no method {unknown[0]!r}: choose from {', '.join(METHODS)}")
    show("training the network ...")
    began = time.perf_counter()
    made = make_data(images, seed)
    training_seconds = time.perf_counter() - began
    learnt, random = (Classifier.from_module(model) for model in (made.model, build_network(seed + 1).eval()))
    rows, maps = [], {}
    for name in only or METHODS:
        show(f"{name} ...")
        changed = CHANGES.get(name, {})
        settings = METHODS[name].configure(**changed)
        began = time.perf_counter()
        found = explain_with(learnt, made.planted.images, name, settings, made.planted.labels)
        seconds = (time.perf_counter() - began) / len(made.kinds)
        other = explain_with(random, made.planted.images, name, settings, made.planted.labels)
        maps[name] = shown(found)
        rows.append(
            PlantedScore(
                name,
                changed,
                found.passes,
                seconds,
                sum(status != "ok" for status in found.status),
                randomised=interval(similarity(maps[name], shown(other)).tolist()),
                **score(maps[name], made),
            )
        )
    rows.append(PlantedScore(CHANCE, {}, 0, 0.0, 0, randomised=None, **score(blobs(len(made.kinds), seed), made)))
    area = float(made.planted.evidence.double().mean())
    return PlantedResult(images, seed, made.accuracy, made.obeyed, area, training_seconds, rows), made, maps


def score(maps: Tensor, made: PlantedData) -> dict[str, Any]:
    """The scores of a row that maps (N, 64, 64) alone decide."""
    evidence, regions = made.planted.evidence, made.planted.regions
    energy = proportion(maps, evidence)
    of = {kind: torch.tensor([kind == other for other in made.kinds]) for kind in KINDS}
    return {
        "energy": interval(energy.tolist()),
        "energy_by_kind": {kind: interval(energy[those].tolist()) for kind, those in of.items()},
        "pointing": interval(pointing(maps, evidence).tolist()),
        **{kind: interval(both_found(maps[of[kind]], regions[of[kind]], PATCH).tolist()) for kind in ("redundant", "joint")},
    }


def shown(explanation: Explanation) -> Tensor:
    """An explanation's maps, those that are flat or not numbers being the same everywhere: they are scored, not left out."""
    ok = torch.tensor([status == "ok" for status in explanation.status])
    return torch.where(ok[:, None, None], explanation.maps, 1.0)


def blobs(count: int, seed: int) -> Tensor:
    """Maps that know nothing, as coarse as a CAM, (count, 64, 64)."""
    cells = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(cells, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
