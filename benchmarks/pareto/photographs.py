"""Photographs of the Pareto benchmark, ordered by the classifier's confidence.

One half is for choosing settings, the other half for reporting.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch

from pipeline.classifiers.load import load_classifier, preprocess_of
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.batches import read_batches
from pipeline.datasets.images import read_file
from pipeline.errors import InputError
from pipeline.storage.objects import Storage

SPLITS = ("choose", "report")
_BATCH = 8


@dataclass(frozen=True)
class Photograph:
    """Readable image of a dataset and the probability of its predicted class."""

    sample: Sample
    probability: float


def split_by_confidence(config: RunConfig) -> dict[str, list[Photograph]]:
    """Sort readable images by their class's probability and split them in turn.

    Raises:
        InputError: if the dataset or the classifier cannot be used.
    """
    samples = list_samples(config.dataset, config.storage)
    classifier = load_classifier(config.classifier, config.seed)
    photographs = []
    with classifier.frozen() as network, torch.no_grad():
        for batch in read_batches(samples, config.storage, preprocess_of(classifier), _BATCH, timeout=config.compute.storage_timeout):
            if batch.images is not None:
                confidence = network(batch.images).softmax(1).amax(1)
                photographs += [Photograph(samples[item.row], p) for item, p in zip(batch.loaded, confidence.tolist(), strict=True)]
    photographs.sort(key=lambda photograph: (photograph.probability, photograph.sample.image_id))
    return {split: photographs[offset :: len(SPLITS)] for offset, split in enumerate(SPLITS)}


def evenly_spaced(ordered: Sequence[Photograph], count: int) -> list[Photograph]:
    """Select `count` photographs at even distances, from the first to the last.

    Raises:
        InputError: if there are fewer than `count`.
    """
    if count > len(ordered):
        raise InputError(f"{count} photographs are requested, but half of the dataset has only {len(ordered)} readable ones")
    last = len(ordered) - 1
    return [ordered[round(number * last / max(count - 1, 1))] for number in range(count)]


def write_manifest(selected: Sequence[Photograph], storage: Storage, name: str, options: Mapping[str, Any]) -> str:
    """Write the photographs as a dataset of kind `manifest`; return its URL.

    The photographs are copied, because a manifest's files must be below it.

    Args:
        storage: where the manifest and its photographs are written.
        name: name of the manifest, and of the folder with the photographs beside it.
        options: fsspec options of the photographs' original storage.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "image_id", "class_name", "bbox", "probability"])
    for number, photograph in enumerate(selected):
        sample = photograph.sample
        path = f"{name}/{number:04d}{PurePosixPath(sample.path).suffix}"
        storage.write(path, read_file(sample.path, sample.root, options))
        box = "" if sample.bbox is None else " ".join(map(str, sample.bbox))
        rows.writerow([path, sample.image_id, sample.class_name, box, f"{photograph.probability:.6f}"])
    storage.write(f"{name}.csv", text.getvalue().encode())
    return storage.url(f"{name}.csv")
