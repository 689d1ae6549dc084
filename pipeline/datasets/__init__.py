"""Datasets: every kind gives the same Sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config.schema import DatasetConfig
from pipeline.datasets.cub import cub_samples
from pipeline.datasets.demo import demo_samples
from pipeline.datasets.folder import folder_samples
from pipeline.datasets.idrid import idrid_samples
from pipeline.datasets.manifest import manifest_samples
from pipeline.datasets.palm import palm_samples
from pipeline.datasets.sample import Masks, Sample, select
from pipeline.datasets.splits import resplit
from pipeline.errors import InputError

Reader = Callable[[DatasetConfig, Mapping[str, Any]], list[Sample]]

KINDS: dict[str, Reader] = {
    "demo": demo_samples,
    "cub": cub_samples,
    "palm": palm_samples,
    "idrid": idrid_samples,
    "folder": folder_samples,
    "manifest": manifest_samples,
}

__all__ = ["KINDS", "Masks", "Sample", "list_samples"]


def list_samples(config: DatasetConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """The dataset's images in a fixed order, drawn as the configuration says.

    Args:
        storage: fsspec options for a root that is a URL.

    Raises:
        InputError: if the dataset is missing, has no images or is not what its kind says, or if a class has fewer images than
            are to be drawn of it.
    """
    if config.splits is None:
        samples = KINDS[config.kind](config, storage)
    else:
        samples = resplit(KINDS[config.kind](config.model_copy(update={"split": None}), storage), config.splits, storage)
        samples = [sample for sample in samples if config.split is None or sample.split == config.split]
    if not samples:
        raise InputError(f"{config.root or config.kind}: no images; look at dataset.root, dataset.kind and dataset.split")
    if config.per_class is not None:
        _check_classes(samples, config.per_class)
    chosen = select(samples, config.per_class, config.limit, config.seed)
    seen: set[str] = set()
    for sample in chosen:
        if sample.image_id in seen:
            raise InputError(f"{config.root}: two images have the id {sample.image_id!r}; ids must differ")
        seen.add(sample.image_id)
    return chosen


def _check_classes(samples: list[Sample], per_class: int) -> None:
    counts = Counter(sample.label for sample in samples)
    label, count = min(counts.items(), key=lambda item: item[1])
    if count < per_class:
        name = next((sample.class_name for sample in samples if sample.label == label), None) or f"number {label}"
        what = "images without a label" if label is None else f"images of the class {name}"
        raise InputError(f"dataset.per_class {per_class}: there are only {count} {what}; draw at most {count} of each")
