"""Samples of a configured dataset.

They are listed by the dataset's kind, then selected by split, class and number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.datasets.kind import DatasetConfig
from pipeline.datasets.listing import Listing, ListingNotes, notes_of
from pipeline.datasets.registry import DATASETS
from pipeline.datasets.sample import Sample, select
from pipeline.datasets.splits import resplit
from pipeline.errors import InputError


def list_samples(config: DatasetConfig, storage: Mapping[str, Any]) -> Listing:
    """List the selected samples of a dataset, in a fixed order.

    The list's `notes` count what the dataset's kind left out.

    Args:
        storage: fsspec options for a root that is a URL.

    Raises:
        InputError: if the dataset is missing, has no images or does not fit its kind, or if a class has fewer images than
            `per_class`.
    """
    samples: list[Sample] = DATASETS[config.kind].read(config, storage)
    notes = notes_of(samples)
    if config.splits is not None:
        samples = resplit(samples, config.splits, storage, notes)
    if config.split is not None:
        samples = _of_split(samples, config, config.split)
    if not samples:
        raise InputError(_no_images(config, notes))
    if config.per_class is not None:
        _check_classes(samples, config.per_class)
    selected = select(samples, config.per_class, config.limit, config.seed)
    ids: set[str] = set()
    for sample in selected:
        if sample.image_id in ids:
            raise InputError(f"{config.root}: two images have the id {sample.image_id!r}; ids must differ")
        ids.add(sample.image_id)
    return Listing(selected, notes)


def _of_split(samples: Sequence[Sample], config: DatasetConfig, split: str) -> list[Sample]:
    """Select the images of a split; refuse one that the dataset does not have."""
    selected = [sample for sample in samples if sample.split == split]
    if samples and not selected:
        known = sorted({sample.split for sample in samples if sample.split is not None})
        has = f"has {', '.join(known[:10])}" if known else "has no splits"
        raise InputError(f"{config.root or config.kind}: no images in the split {split!r}; the dataset {has}; look at dataset.split")
    return selected


def _no_images(config: DatasetConfig, notes: ListingNotes) -> str:
    left_out = f"; {text}" if (text := notes.left_out_text()) else ""
    return f"{config.root or config.kind}: no images{left_out}; look at dataset.root, dataset.kind and dataset.split"


def _check_classes(samples: Sequence[Sample], per_class: int) -> None:
    """Refuse a `per_class` that is larger than the smallest class."""
    counts = Counter(sample.label for sample in samples)
    label, count = min(counts.items(), key=lambda item: item[1])
    if count < per_class:
        name = next((sample.class_name for sample in samples if sample.label == label), None) or f"number {label}"
        what = "images without a label" if label is None else f"images of the class {name}"
        raise InputError(f"dataset.per_class {per_class}: there are only {count} {what}; draw at most {count} of each")
