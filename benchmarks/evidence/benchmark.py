"""Comparison of `find_evidence` with beam search over patches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.evidence.patches import PatchScores, beam_search, disjoint_sets, largest_collection
from benchmarks.pareto.photographs import evenly_spaced, split_by_confidence
from benchmarks.planted.benchmark import make_data
from hdm_core import Classifier, EvidenceSettings, find_evidence
from hdm_core.device import pick_device
from hdm_core.masking.baselines import baseline_image
from pipeline.classifiers.load import load_classifier, preprocess_of
from pipeline.config.schema import RunConfig
from pipeline.datasets.batches import read_batches
from pipeline.tables.aggregate import interval

OURS, GRAPHS, ROUNDS = "find_evidence", "beam search", "beam search, disjoint"
_BATCH = 16  # images that are explained together

Interval = tuple[float, float]  # mean and half of the 95% interval


@dataclass(frozen=True)
class Beam:
    """Settings of the beam search.

    Attributes:
        width: sets that are grown further, of each size.
        sets: sets after which one search ends.
        overlap: patches that two sets of one search may share.
        side: patches along each side of the image.
    """

    width: int = 5
    sets: int = 20
    overlap: int = 1
    side: int = 7


@dataclass(frozen=True)
class Row:
    """Pieces that one way found of one image.

    Attributes:
        count: number of pieces.
        area: share of the pixels that belong to a piece.
        smallest: area of the first or smallest piece; NaN without pieces.
        passes: with those that need no backward.
        truth: of a planted image: whether the number of pieces is right, whether each true piece was found, and the share of the pieces'
            pixels that are evidence.
    """

    count: int
    area: float
    smallest: float
    passes: int
    seconds: float
    truth: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Result on one set of images.

    Attributes:
        images: number of images that have pieces.
        no_contrast: images whose baseline keeps the class, which are left out.
        means: way -> number -> mean over the images and half of its 95% interval.
        differences: way -> number -> paired difference, `find_evidence` minus that way.
    """

    name: str
    images: int
    no_contrast: int
    means: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


Truth = Callable[[int, list[Tensor]], dict[str, float]]  # image, its pieces (H, W) -> scores


def compare_photographs(
    config: RunConfig, split: str, count: int, settings: EvidenceSettings, beam: Beam, show: Callable[[str], None]
) -> Comparison:
    """Compare on photographs of a dataset, for the predicted class.

    Args:
        split, count: half of the photographs to use, and how many of it.

    Raises:
        InputError: if the dataset or the classifier cannot be used, or has too few photographs.
    """
    samples = [photograph.sample for photograph in evenly_spaced(split_by_confidence(config)[split], count)]
    classifier = load_classifier(config.classifier, config.seed).to(pick_device(1))
    batches = read_batches(samples, config.storage, preprocess_of(classifier), _BATCH, timeout=config.compute.storage_timeout)
    images = torch.cat([batch.images for batch in batches if batch.images is not None]).to(classifier.device)
    return compare(f"{config.name}-{split}", classifier, images, None, settings, beam, show)


def compare_planted(images: int, seed: int, settings: EvidenceSettings, beam: Beam, show: Callable[[str], None]) -> list[Comparison]:
    """Compare on planted images, whose pieces are known: one result per kind.

    Raises:
        InputError: for a network that did not learn.
    """
    data = make_data(images, seed)
    classifier = Classifier.from_module(data.model).to(pick_device(1))
    results = []
    for kind in dict.fromkeys(data.kinds):
        planted = data.planted[torch.tensor([kind == other for other in data.kinds])]
        regions = planted.regions.any(1, keepdim=True) if kind == "joint" else planted.regions

        def truth(image: int, pieces: list[Tensor], regions: Tensor = regions) -> dict[str, float]:
            return score_pieces(pieces, [region for region in regions[image] if region.any()])

        chosen = planted.images.to(classifier.device)
        results.append(compare(f"planted-{kind}", classifier, chosen, planted.labels, settings, beam, show, truth))
    return results


def score_pieces(pieces: Sequence[Tensor], true_pieces: Sequence[Tensor]) -> dict[str, float]:
    """Score pieces against the true ones, (H, W) bool each.

    A true piece is found if more than half of the pixels of some piece lie in it.
    """
    evidence = torch.stack(list(true_pieces)).any(0)
    inside = sum(int((piece & evidence).sum()) for piece in pieces)
    found = [any(2 * int((piece & true).sum()) > int(piece.sum()) for piece in pieces) for true in true_pieces]
    return {
        "count_right": float(len(pieces) == len(true_pieces)),
        "all_found": float(all(found)),
        "precision": inside / max(sum(int(piece.sum()) for piece in pieces), 1),
    }


def compare(
    name: str,
    classifier: Classifier,
    images: Tensor,
    targets: Tensor | None,
    settings: EvidenceSettings,
    beam: Beam,
    show: Callable[[str], None],
    truth: Truth | None = None,
) -> Comparison:
    """Compare on images (B, C, H, W), those without contrast left out."""
    rows: dict[str, list[Row]] = {OURS: [], GRAPHS: [], ROUNDS: []}
    for start in range(0, len(images), _BATCH):
        part = images[start : start + _BATCH]
        begin = time.perf_counter()
        evidence = find_evidence(classifier, part, None if targets is None else targets[start : start + _BATCH], settings)
        seconds = (time.perf_counter() - begin) / len(part)
        baseline = baseline_image(settings.baseline, classifier, part)
        for place, pieces in enumerate(evidence.pieces):
            number = start + place
            show(f"{name}: image {number + 1} of {len(images)}")
            if not pieces:
                continue
            found = [piece.pixels.cpu() for piece in pieces]
            rows[OURS].append(_row(found, evidence.passes[place], seconds, number, truth))
            target, background = int(evidence.targets[place]), baseline[place if len(baseline) > 1 else 0]
            for way in (GRAPHS, ROUNDS):
                begin = time.perf_counter()
                sets, forwards = _beam_sets(way, classifier, part[place], background, target, settings, beam)
                rows[way].append(_row(sets, forwards, time.perf_counter() - begin, number, truth))
    return _summary(name, rows, len(images))


def _beam_sets(
    way: str, classifier: Classifier, image: Tensor, baseline: Tensor, target: int, settings: EvidenceSettings, beam: Beam
) -> tuple[list[Tensor], int]:
    """Return the sets of one of the two beam searches as pixels, and its forwards."""
    with classifier.folded(image[None]) as network, torch.no_grad():
        scores = PatchScores(lambda shown: classifier.probabilities(network(shown))[:, target], image, baseline, beam.side)
        if way == GRAPHS:
            sets = largest_collection(beam_search(scores, scores.all, settings.kept, beam.width, beam.sets), beam.overlap)
        else:
            sets = disjoint_sets(scores, settings.kept, beam.width, settings.max_pieces)
    return [scores.pixels(each).cpu() for each in sets], scores.forwards


def _row(pieces: list[Tensor], passes: int, seconds: float, number: int, truth: Truth | None) -> Row:
    areas = [float(piece.double().mean()) for piece in pieces]
    union = float(torch.stack(pieces).any(0).double().mean()) if pieces else 0.0
    scores = {} if truth is None else truth(number, pieces)
    return Row(len(pieces), union, min(areas, default=math.nan), passes, seconds, scores)


def _summary(name: str, rows: dict[str, list[Row]], images: int) -> Comparison:
    """Average over the images; the differences are paired."""
    tables = {way: [_numbers(row) for row in found] for way, found in rows.items()}
    ours = tables[OURS]
    names = list(ours[0]) if ours else []
    means = {way: {key: interval([row[key] for row in table]) for key in names} for way, table in tables.items()}
    differences = {
        way: {key: interval([one[key] - other[key] for one, other in zip(ours, table, strict=True)]) for key in names}
        for way, table in tables.items()
        if way != OURS
    }
    return Comparison(name, len(ours), images - len(ours), means, differences)


def _numbers(row: Row) -> dict[str, float]:
    numbers = {key: float(value) for key, value in asdict(row).items() if key != "truth"}
    return {**numbers, **row.truth}
