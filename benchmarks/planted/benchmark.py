"""Benchmark of methods on planted images, whose evidence is known by construction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.planted.images import KINDS, PATCH, SIDE, PlantedImages, plant
from benchmarks.planted.network import STEPS, build_network, is_correct, train
from benchmarks.planted.scores import both_found, pointing, similarity
from hdm_core import METHODS, Classifier, Explanation, explain_with
from hdm_core.metrics.localisation import proportion
from pipeline.errors import InputError
from pipeline.tables.aggregate import interval

# Differences from the methods' defaults: fewer masks, and the lengths of Mask, which are for 224 pixels, scaled to 64.
CHANGES: dict[str, dict[str, Any]] = {"rise": {"masks": 1000}, "mask": {"cell": 2, "blur": 1.5, "jitter": 2}}
CHANCE = "chance"
_HELD_OUT = 200  # images per kind

Interval = tuple[float, float]  # mean and half of the 95% interval


@dataclass(frozen=True)
class PlantedScore:
    """Scores of one method: each a mean over images and half of its 95% interval.

    Attributes:
        method: its id, or "chance": maps of random blobs.
        changed: settings that differ from the method's defaults.
        passes, seconds: per image.
        flat: images without a map, scored as a constant map.
        energy, energy_by_kind: share of the map's sum inside the evidence.
        pointing: 1 where the map is largest inside the evidence.
        redundant, joint: 1 where both patches of an image of this kind were found.
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
    """Result of the benchmark.

    Attributes:
        images: images per kind.
        accuracy: on held-out images of the three kinds.
        obeyed: share of those on which the network follows the rule also when patches are removed.
        area: share of the pixels that is evidence, which is the energy of a flat map.
        rows: one per method, chance last.
    """

    images: int
    seed: int
    accuracy: float
    obeyed: float
    area: float
    training_seconds: float
    rows: list[PlantedScore]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


@dataclass(frozen=True)
class PlantedData:
    """Images of all kinds, grouped by kind, and the network to explain.

    Attributes:
        kinds: kind of each image.
        accuracy, obeyed: as in `PlantedResult`.
    """

    planted: PlantedImages
    kinds: list[str]
    model: torch.nn.Sequential
    accuracy: float
    obeyed: float


def make_data(images: int, seed: int, steps: int = STEPS) -> PlantedData:
    """Train the network; draw images that it classifies by the rule.

    Args:
        images: images per kind.

    Raises:
        InputError: if the network follows the rule on too few images.
    """
    model, generator = train(seed, steps), torch.Generator().manual_seed(seed + 1_000_000)
    selected, correct, follows = [], [], []
    for kind in KINDS:
        drawn = plant(kind, max(_HELD_OUT, 2 * images), generator)
        with torch.no_grad():
            correct.append(model(drawn.images).argmax(1) == drawn.labels)
        follows.append(is_correct(model, drawn))
        if follows[-1].sum() < images:
            raise InputError(
                f"the network follows the rule on {int(follows[-1].sum())} of {len(drawn)} images ({kind}): use another --seed"
            )
        selected.append(drawn[follows[-1].nonzero()[:images, 0]])
    planted = PlantedImages(*(torch.cat(parts) for parts in zip(*(vars(part).values() for part in selected), strict=True)))
    kinds: list[str] = [kind for kind in KINDS for _ in range(images)]
    return PlantedData(planted, kinds, model, *(float(torch.cat(flags).double().mean()) for flags in (correct, follows)))


def bench_truth(
    images: int, seed: int, only: Sequence[str] | None = None, show: Callable[[str], None] = lambda line: None
) -> tuple[PlantedResult, PlantedData, dict[str, Tensor]]:
    """Score methods, by default all; return the result, the data and the maps.

    Maps are (N, 64, 64), by method.

    Raises:
        InputError: for an unknown method, or a network that did not learn.
    """
    if unknown := [name for name in only or () if name not in METHODS]:
        raise InputError(f"no method {unknown[0]!r}: choose from {', '.join(METHODS)}")
    show("training the network ...")
    start = time.perf_counter()
    data = make_data(images, seed)
    training_seconds = time.perf_counter() - start
    trained, random = (Classifier.from_module(model) for model in (data.model, build_network(seed + 1).eval()))
    rows, maps = [], {}
    for name in only or (method for method, entry in METHODS.items() if not entry.needs_attention):
        show(f"{name} ...")
        changed = CHANGES.get(name, {})
        settings = METHODS[name].configure(**changed)
        start = time.perf_counter()
        explanation = explain_with(trained, data.planted.images, name, settings, data.planted.labels)
        seconds = (time.perf_counter() - start) / len(data.kinds)
        randomised = explain_with(random, data.planted.images, name, settings, data.planted.labels)
        maps[name] = scored_maps(explanation)
        rows.append(
            PlantedScore(
                name,
                changed,
                explanation.passes,
                seconds,
                sum(status != "ok" for status in explanation.status),
                randomised=interval(similarity(maps[name], scored_maps(randomised)).tolist()),
                **score(maps[name], data),
            )
        )
    rows.append(PlantedScore(CHANCE, {}, 0, 0.0, 0, randomised=None, **score(blobs(len(data.kinds), seed), data)))
    area = float(data.planted.evidence.double().mean())
    return PlantedResult(images, seed, data.accuracy, data.obeyed, area, training_seconds, rows), data, maps


def score(maps: Tensor, data: PlantedData) -> dict[str, Any]:
    """Compute the scores that depend on the maps (N, 64, 64) alone."""
    evidence, regions = data.planted.evidence, data.planted.regions
    energy = proportion(maps, evidence)
    by_kind = {kind: torch.tensor([kind == other for other in data.kinds]) for kind in KINDS}
    return {
        "energy": interval(energy.tolist()),
        "energy_by_kind": {kind: interval(energy[of_kind].tolist()) for kind, of_kind in by_kind.items()},
        "pointing": interval(pointing(maps, evidence).tolist()),
        **{kind: interval(both_found(maps[by_kind[kind]], regions[by_kind[kind]], PATCH).tolist()) for kind in ("redundant", "joint")},
    }


def scored_maps(explanation: Explanation) -> Tensor:
    """Return the maps of an explanation, with constant maps for flat or NaN ones.

    A failed map is scored as a constant map, not left out.
    """
    ok = torch.tensor([status == "ok" for status in explanation.status])
    return torch.where(ok[:, None, None], explanation.maps, 1.0)


def blobs(count: int, seed: int) -> Tensor:
    """Draw random maps as coarse as a CAM, (count, 64, 64)."""
    cells = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(cells, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
