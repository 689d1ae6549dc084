"""Datasets: every kind gives the same Sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.config import DatasetConfig
from pipeline.datasets.demo import demo_samples
from pipeline.datasets.folder import folder_samples
from pipeline.datasets.manifest import manifest_samples
from pipeline.datasets.sample import Sample, select
from pipeline.errors import InputError

Reader = Callable[[DatasetConfig, Mapping[str, Any]], list[Sample]]

KINDS: dict[str, Reader] = {"demo": demo_samples, "folder": folder_samples, "manifest": manifest_samples}

__all__ = ["KINDS", "Sample", "list_samples"]


def list_samples(config: DatasetConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """The dataset's images in a fixed order, drawn as the configuration says.

    Args:
        storage: fsspec options for a root that is a URL.

    Raises:
        InputError: if the dataset is missing, has no images or is not what its kind says.
    """
    samples = KINDS[config.kind](config, storage)
    if not samples:
        raise InputError(f"{config.root or config.kind}: no images; look at dataset.root, dataset.kind and dataset.split")
    chosen = select(samples, config.per_class, config.limit, config.seed)
    seen: set[str] = set()
    for sample in chosen:
        if sample.image_id in seen:
            raise InputError(f"{config.root}: two images have the id {sample.image_id!r}; ids must differ")
        seen.add(sample.image_id)
    return chosen
