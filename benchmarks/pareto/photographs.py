"""Photographs to compare settings on: from sure to unsure ones, half to choose on and half to report on."""

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
from pipeline.datasets.batches import LoadedSample, read_batches
from pipeline.datasets.images import read_file
from pipeline.errors import InputError
from pipeline.storage.objects import Storage

SPLITS = ("choose", "report")
_BATCH = 8


@dataclass(frozen=True)
class Photograph:
    """A readable image of a dataset and how sure the classifier is of its class."""

    sample: Sample
    probability: float


def photographs(config: RunConfig) -> dict[str, list[Photograph]]:
    """A dataset's readable images, in the order of the predicted class's probability, dealt out in turn to the splits.

    Raises:
        InputError: if the dataset or the classifier cannot be used.
    """
    samples = list_samples(config.dataset, config.storage)
    classifier = load_classifier(config.classifier, config.seed)
    found = []
    with classifier.frozen() as network, torch.no_grad():
        for items in read_batches(samples, config.storage, preprocess_of(classifier), _BATCH, timeout=config.compute.storage_timeout):
            seen = [item for item in items if isinstance(item, LoadedSample)]
            if seen:
                sure = network(classifier.prepare([item.image.image for item in seen])).softmax(1).amax(1)
                found += [Photograph(samples[item.row], p) for item, p in zip(seen, sure.tolist(), strict=True)]
    found.sort(key=lambda photograph: (photograph.probability, photograph.sample.image_id))
    return {split: found[place :: len(SPLITS)] for place, split in enumerate(SPLITS)}


def spread(ordered: Sequence[Photograph], count: int) -> list[Photograph]:
    """So many photographs, evenly from the first to the last.

    Raises:
        InputError: if there are fewer.
    """
    if count > len(ordered):
        raise InputError(f"{count} photographs are asked for and a half of the dataset has {len(ordered)} that can be read")
    last = len(ordered) - 1
    return [ordered[round(place * last / max(count - 1, 1))] for place in range(count)]


def keep(chosen: Sequence[Photograph], storage: Storage, name: str, options: Mapping[str, Any]) -> str:
    """Copies the photographs to a place as a dataset of kind `manifest`, whose files must lie below it; returns the manifest's URL.

    Args:
        name: of the manifest, and of the folder with the photographs beside it.
        options: fsspec options of the photographs' own place.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "image_id", "class_name", "probability"])
    for number, photograph in enumerate(chosen):
        sample = photograph.sample
        path = f"{name}/{number:04d}{PurePosixPath(sample.path).suffix}"
        storage.write(path, read_file(sample.path, sample.root, options))
        rows.writerow([path, sample.image_id, sample.class_name, f"{photograph.probability:.6f}"])
    storage.write(f"{name}.csv", text.getvalue().encode())
    return storage.url(f"{name}.csv")
