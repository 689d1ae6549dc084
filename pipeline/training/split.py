"""Split of a dataset into training, validation and test images."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hdm_core.class_names import check_spellings
from pipeline.datasets import Sample
from pipeline.errors import InputError
from pipeline.training.config import TrainConfig

SPLIT = "split.csv"
TRAIN, VALIDATION, TEST = ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    """Labelled image with its role in the training.

    Attributes:
        role: train, validation or test.
        target: index of the class in the network's output.
    """

    sample: Sample
    role: str
    target: int


@dataclass(frozen=True)
class Splits:
    """Result of the split.

    Attributes:
        items: the labelled images in the dataset's order.
        classes: names in the order of the network's outputs.
        unlabelled: number of images without a label.
    """

    items: tuple[Example, ...]
    classes: tuple[str, ...]
    unlabelled: int


def split(samples: Sequence[Sample], config: TrainConfig) -> Splits:
    """Assign a role to each labelled image.

    A fraction is drawn from each class separately, with the seed.

    Raises:
        InputError: if a named split does not exist, there are fewer than two classes, or a class has no training images.
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
    for role, held_out in ((TEST, config.test), (VALIDATION, config.validation)):
        rest = [sample for sample in labelled if roles[sample.image_id] == TRAIN]
        for sample in _held_out_samples(rest, held_out, role, config.seed):
            roles[sample.image_id] = role
    items = tuple(Example(sample, roles[sample.image_id], targets[int(sample.label or 0)]) for sample in labelled)
    check_classes(items, classes)
    return Splits(items, classes, len(samples) - len(labelled))


def check_classes(items: Sequence[Example], classes: Sequence[str]) -> None:
    """Check that each class has training images, and a name of its own.

    Raises:
        InputError: if a class has none.
    """
    try:
        check_spellings(classes)
    except ValueError as error:
        raise InputError(f"the dataset's class {error}") from None
    counts = Counter(item.target for item in items if item.role == TRAIN)
    for number, name in enumerate(classes):
        if not counts[number]:
            raise InputError(f"the class {name} has no images to train on; look at the dataset, test and validation")


def _held_out_samples(samples: Sequence[Sample], held_out: float | str | None, role: str, seed: int) -> list[Sample]:
    if held_out is None:
        return []
    if isinstance(held_out, str):
        chosen = [sample for sample in samples if sample.split == held_out]
        if not chosen:
            known = sorted({str(sample.split) for sample in samples if sample.split is not None})
            raise InputError(f"{role}: no labelled images in the split {held_out!r}; the dataset has {', '.join(known) or 'no splits'}")
        return chosen
    classes: dict[int | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        classes[sample.label].append(sample)
    rng = random.Random(f"{role} {seed}")  # noqa: S311 - a reproducible draw, not a secret
    return [sample for label in sorted(classes, key=str) for sample in rng.sample(classes[label], round(held_out * len(classes[label])))]


def split_table(items: Sequence[Example], classes: Sequence[str], read_results: Sequence[tuple[str, str]]) -> bytes:
    """Build split.csv: one row per image with its role.

    Args:
        read_results: (sha256, error) of each item, as in `ImageCache.read_results`.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image_id", "split", "label", "class_name", "sha256", "error"))
    for item, (sha256, error) in zip(items, read_results, strict=True):
        table.writerow((item.sample.image_id, item.role, item.target, classes[item.target], sha256, error))
    return text.getvalue().encode()
