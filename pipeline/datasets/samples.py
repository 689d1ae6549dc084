"""Samples of a configured dataset.

They are listed by the dataset's kind, then selected by split, class and number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.datasets.kind import DatasetConfig
from pipeline.datasets.registry import DATASETS
from pipeline.datasets.sample import Sample, select
from pipeline.datasets.splits import resplit
from pipeline.errors import InputError


def list_samples(config: DatasetConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """List the selected samples of a dataset, in a fixed order.

    Args:
        storage: fsspec options for a root that is a URL.

    Raises:
        InputError: if the dataset is missing, has no images or does not fit its kind, or if a class has fewer images than
            `per_class`.
    """
    samples = DATASETS[config.kind].read(config, storage)
    if config.splits is not None:
        samples = resplit(samples, config.splits, storage)
    samples = [sample for sample in samples if config.split is None or sample.split == config.split]
    if not samples:
        raise InputError(f"{config.root or config.kind}: no images; look at dataset.root, dataset.kind and dataset.split")
    if config.per_class is not None:
        _check_classes(samples, config.per_class)
    selected = select(samples, config.per_class, config.limit, config.seed)
    ids: set[str] = set()
    for sample in selected:
        if sample.image_id in ids:
            raise InputError(f"{config.root}: two images have the id {sample.image_id!r}; ids must differ")
        ids.add(sample.image_id)
    return selected


def _check_classes(samples: list[Sample], per_class: int) -> None:
    """Refuse a `per_class` that is larger than the smallest class."""
    counts = Counter(sample.label for sample in samples)
    label, count = min(counts.items(), key=lambda item: item[1])
    if count < per_class:
        name = next((sample.class_name for sample in samples if sample.label == label), None) or f"number {label}"
        what = "images without a label" if label is None else f"images of the class {name}"
        raise InputError(f"dataset.per_class {per_class}: there are only {count} {what}; draw at most {count} of each")
