"""One shard's work: read its images, explain and measure them, give arrays and records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdm_core import Classifier, explain_with
from hdm_core.device import default_batch
from hdm_core.settings import HDMSettings
from pipeline.classifiers import preprocess_of
from pipeline.config import RunConfig
from pipeline.datasets import Sample
from pipeline.device import device_name
from pipeline.errors import one_line
from pipeline.measuring import Explained, measure
from pipeline.plan import Shard
from pipeline.reading import Seen, read_batches
from pipeline.store.maps import STAGES, layout

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ShardResult:
    """What a shard leaves: arrays of its rows, records in row order, and what reading the images told."""

    arrays: dict[str, NDArray[np.float16]]
    records: list[dict[str, Any]]
    facts: list[dict[str, Any]]


def explain_shard(
    classifier: Classifier,
    config: RunConfig,
    shard: Shard,
    samples: Sequence[Sample],
    progress: Progress | None = None,
    batch: int | None = None,
) -> ShardResult:
    """Explains the samples of a shard with every method of the configuration.

    An image that cannot be read, or on which a method fails, becomes records with that status; its maps are zeros.

    Args:
        batch: how many images go through the network at once; None takes the configuration's, or the device's.
    """
    preprocess = preprocess_of(classifier)
    batch = batch or config.compute.fixed_batch or default_batch(classifier.device)
    stages = next((s.stages for s in config.settings.values() if isinstance(s, HDMSettings)), None)
    shapes = layout(config.methods, len(shard), preprocess.crop, stages)
    arrays = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    facts: list[dict[str, Any]] = []
    outcomes: dict[tuple[int, str], dict[str, Any]] = {}

    for items in read_batches(samples, config, preprocess, batch):
        seen = [item for item in items if isinstance(item, Seen)]
        for item in items:
            facts.append({"row": shard.start + item.row} | (item.facts if isinstance(item, Seen) else {}))
            if not isinstance(item, Seen):
                outcomes.update({(item.row, method): {"status": "unreadable", "error": item.error} for method in config.methods})
        if not seen:
            continue
        images = classifier.prepare([item.picture.image for item in seen])
        explained: list[Explained] = []
        for method in config.methods:
            for found in _explain(classifier, config, images, method, batch, progress):
                if isinstance(found, Failed):
                    outcomes[seen[found.place].row, method] = {"status": "failed", "error": found.error}
                    continue
                explained.append(found)
                rows, explanation = [seen[place].row for place in found.places], found.explanation
                arrays[method][rows] = explanation.maps.half().cpu().numpy()
                if explanation.stages is not None:
                    arrays[STAGES][rows] = explanation.stages.nan_to_num(0).half().cpu().numpy()
        regions, kinds = torch.stack([item.region for item in seen]), [item.kind for item in seen]
        measured = measure(classifier, images, regions, kinds, explained, config.metrics, batch)
        outcomes.update({(seen[place].row, method): record for (place, method), record in measured.items()})

    common = {"run": config.name, "shard": shard.index, "seed": config.seed, "device": device_name(classifier.device)}
    common |= {"region": "none", "passes": 0}
    records = [
        {**common, "row": shard.start + row, "image_id": sample.image_id, "method": method, "label": sample.label, **outcomes[row, method]}
        for row, sample in enumerate(samples)
        for method in config.methods
    ]
    return ShardResult(arrays, records, facts)


@dataclass(frozen=True)
class Failed:
    """An image of a batch on which a method raised."""

    place: int
    error: str


def _explain(
    classifier: Classifier, config: RunConfig, images: Tensor, method: str, batch: int, progress: Progress | None
) -> Iterator[Explained | Failed]:
    """Images (B, C, H, W) explained by one method: some of them at a time.

    Where the method fails on the batch it goes on image by image, so that one image costs no other its map.
    """
    targets = None if config.target == "predicted" else config.target
    attempts = [list(range(len(images)))]
    while attempts:
        places = attempts.pop(0)
        begin = time.perf_counter()
        try:
            explanation = explain_with(
                classifier,
                images[places],
                method,
                config.settings[method],
                targets,
                batch=batch,
                precision=config.compute.fixed_precision,
                progress=progress,
            )
        except Exception as error:  # whatever a user's network raises belongs to this image, not to the run
            if len(places) > 1:
                attempts = [[place] for place in places]
            else:
                yield Failed(places[0], f"{type(error).__name__}: {one_line(error)}")
            continue
        yield Explained(method, places, explanation, (time.perf_counter() - begin) / len(places))
