"""Which images a network learns from, which an epoch is chosen by, and which it is tested on."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.datasets import Sample
from pipeline.errors import InputError
from pipeline.training.config import TrainConfig

SPLIT = "split.csv"
TRAIN, VALIDATION, TEST = ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """An image with its part in the training and its class, the network's output of that number."""

    sample: Sample
    role: str
    target: int


@dataclass(frozen=True)
class Splits:
    """The labelled images in the dataset's order, and the classes' names in the order of the network's outputs."""

    items: tuple[Example, ...]
    classes: tuple[str, ...]
    unlabelled: int


def split(samples: Sequence[Sample], config: TrainConfig) -> Splits:
    """Gives every labelled image its part. A share is drawn with the seed, of every class by itself.

    Raises:
        InputError: if there is no such split, fewer than two classes, or a class without images to train on.
    """
    labelled = [sample for sample in samples if sample.label is not None]
    numbers = sorted({int(sample.label) for sample in labelled if sample.label is not None})
    targets = {label: number for number, label in enumerate(numbers)}
    names = {sample.label: sample.class_name for sample in labelled if sample.class_name is not None}
    classes = tuple(str(names.get(label, label)) for label in numbers)
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no labels"
        raise InputError(f"{config.dataset.root}: {found}; a classifier needs images of two classes or more")
    roles = dict.fromkeys((sample.image_id for sample in labelled), TRAIN)
    for role, held in ((TEST, config.test), (VALIDATION, config.validation)):
        rest = [sample for sample in labelled if roles[sample.image_id] == TRAIN]
        for sample in _held_back(rest, held, role, config.seed):
            roles[sample.image_id] = role
    items = tuple(Example(sample, roles[sample.image_id], targets[int(sample.label or 0)]) for sample in labelled)
    check_classes(items, classes)
    return Splits(items, classes, len(samples) - len(labelled))


def check_classes(items: Sequence[Example], classes: Sequence[str]) -> None:
    """Whether there is something to train on for every class.

    Raises:
        InputError: if there is not.
    """
    counts = Counter(item.target for item in items if item.role == TRAIN)
    for number, name in enumerate(classes):
        if not counts[number]:
            raise InputError(f"the class {name} has no images to train on; look at the dataset, test and validation")


def _held_back(samples: Sequence[Sample], held: float | str | None, role: str, seed: int) -> list[Sample]:
    if held is None:
        return []
    if isinstance(held, str):
        chosen = [sample for sample in samples if sample.split == held]
        if not chosen:
            known = sorted({str(sample.split) for sample in samples if sample.split is not None})
            raise InputError(f"{role}: no labelled images in the split {held!r}; the dataset has {', '.join(known) or 'no splits'}")
        return chosen
    classes: dict[int | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        classes[sample.label].append(sample)
    draw = random.Random(f"{role} {seed}")  # noqa: S311 - a reproducible draw, not a secret
    return [sample for label in sorted(classes, key=str) for sample in draw.sample(classes[label], round(held * len(classes[label])))]


def split_table(items: Sequence[Example], classes: Sequence[str], facts: Sequence[tuple[str, str]]) -> bytes:
    """split.csv: a row an image with its part; `facts` are its file's checksum and why it could not be read."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image_id", "split", "label", "class_name", "sha256", "error"))
    for item, (sha256, error) in zip(items, facts, strict=True):
        table.writerow((item.sample.image_id, item.role, item.target, classes[item.target], sha256, error))
    return text.getvalue().encode()
