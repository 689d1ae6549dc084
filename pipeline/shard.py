"""One shard's work: read its images, explain and measure them, give arrays and records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdm_core import Classifier, Explanation, Preprocess, evaluate, explain_with
from hdm_core.classifier import default_batch
from hdm_core.settings import HDMSettings, Settings
from pipeline.classifiers import preprocess_of
from pipeline.config import RunConfig
from pipeline.datasets.images import Picture, UnreadableError, read_picture, read_region
from pipeline.datasets.sample import Sample
from pipeline.device import device_name
from pipeline.errors import one_line
from pipeline.plan import Shard
from pipeline.store.maps import STAGES, layout

_READERS = 8  # images that are read and decoded at once


@dataclass
class ShardResult:
    """What a shard leaves: arrays of its rows, records in row order, and what reading the images told."""

    arrays: dict[str, NDArray[np.float16]]
    records: list[dict[str, Any]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class _Loaded:
    """A batch of images that could be read."""

    rows: list[int]  # within the shard
    images: Tensor  # (B, C, H, W)
    regions: Tensor  # (B, H, W) bool
    kinds: list[str]


def explain_shard(
    classifier: Classifier, config: RunConfig, shard: Shard, samples: Sequence[Sample], progress: Callable[[int], None] | None = None
) -> ShardResult:
    """Explains the samples of a shard with every method of the configuration.

    An image that cannot be read, or on which a method fails, becomes records with that status; its maps are zeros.
    """
    preprocess = preprocess_of(classifier)
    stages = next((s.stages for s in config.settings.values() if isinstance(s, HDMSettings)), None)
    shapes = layout(config.methods, len(shard), preprocess.crop, stages)
    result = ShardResult({name: np.zeros(shape, np.float16) for name, shape in shapes.items()})
    batch = default_batch(classifier.device) if config.compute.batch == "auto" else config.compute.batch
    blank = {"run": config.name, "shard": shard.index, "seed": config.seed, "device": device_name(classifier.device)}
    records: dict[tuple[int, str], dict[str, Any]] = {}

    for loaded in _load(classifier, preprocess, config, samples, batch, result, records):
        for method, settings in config.settings.items():
            for part in _explain(classifier, config, loaded, method, settings, batch, progress):
                rows, explanation, error, seconds = part
                if explanation is None:
                    records.update({(row, method): {"status": "failed", "error": error} for row in rows})
                    continue
                _keep(result, rows, method, explanation)
                measured = _measure(classifier, config, loaded, rows, explanation, batch, seconds)
                records.update({(row, method): record for row, record in zip(rows, measured, strict=True)})

    for row, sample in enumerate(samples):
        for method in config.methods:
            identity = {"row": shard.start + row, "image_id": sample.image_id, "method": method, "label": sample.label}
            result.records.append({**blank, **identity, "region": "none", "passes": 0, **records[row, method]})
        result.facts[row]["row"] = shard.start + row
    return result


def _load(
    classifier: Classifier,
    preprocess: Preprocess,
    config: RunConfig,
    samples: Sequence[Sample],
    batch: int,
    result: ShardResult,
    records: dict[tuple[int, str], dict[str, Any]],
) -> Iterator[_Loaded]:
    """The shard's readable images in batches; notes facts of all and records of the unreadable."""

    def read(sample: Sample) -> tuple[Picture, Tensor, str] | str:
        try:
            picture = read_picture(sample, config.storage)
            return picture, *read_region(sample, picture, preprocess, config.storage)
        except UnreadableError as error:
            return one_line(error)

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(samples), batch):
            rows, pictures, regions, kinds = [], [], [], []
            for row, found in enumerate(readers.map(read, samples[start : start + batch]), start=start):
                if isinstance(found, str):
                    result.facts.append({})
                    records.update({(row, method): {"status": "unreadable", "error": found} for method in config.methods})
                    continue
                picture, region, kind = found
                width, height = picture.image.size
                crop = preprocess.crop_box(width, height)
                result.facts.append({"sha256": picture.sha256, "width": width, "height": height, "crop": crop})
                rows.append(row)
                pictures.append(picture.image)
                regions.append(region)
                kinds.append(kind)
            if rows:
                yield _Loaded(rows, classifier.prepare(pictures), torch.stack(regions), kinds)


def _explain(
    classifier: Classifier,
    config: RunConfig,
    loaded: _Loaded,
    method: str,
    settings: Settings,
    batch: int,
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[list[int], Explanation | None, str | None, float]]:
    """A batch's maps; where the method fails on the batch, image by image, so that one image costs no other its map."""
    targets = None if config.target == "predicted" else config.target
    places = list(range(len(loaded.rows)))
    attempts = [places]
    while attempts:
        chosen = attempts.pop(0)
        rows = [loaded.rows[place] for place in chosen]
        begin = time.perf_counter()
        try:
            explanation = explain_with(classifier, loaded.images[chosen], method, settings, targets, batch=batch, progress=progress)
        except Exception as error:  # whatever a user's network raises belongs to this image, not to the run
            if len(chosen) > 1:
                attempts = [[place] for place in chosen]
            else:
                yield rows, None, f"{type(error).__name__}: {one_line(error)}", 0.0
            continue
        yield rows, explanation, None, time.perf_counter() - begin


def _keep(result: ShardResult, rows: list[int], method: str, explanation: Explanation) -> None:
    result.arrays[method][rows] = explanation.maps.half().cpu().numpy()
    if explanation.stages is not None:
        result.arrays[STAGES][rows] = explanation.stages.nan_to_num(0).half().cpu().numpy()


def _measure(
    classifier: Classifier, config: RunConfig, loaded: _Loaded, rows: list[int], explanation: Explanation, batch: int, seconds: float
) -> list[dict[str, Any]]:
    """A record for every row; metrics for those whose status is ok."""
    places = [loaded.rows.index(row) for row in rows]
    probability = explanation.logits.softmax(1)
    records: list[dict[str, Any]] = []
    for i, place in enumerate(places):
        target = int(explanation.targets[i])
        weights = explanation.stage_weights
        records.append(
            {
                "status": explanation.status[i],
                "target": target,
                "target_name": classifier.class_name(target),
                "probability": float(probability[i, target]),
                "logit": float(explanation.logits[i, target]),
                "region": loaded.kinds[place],
                "passes": explanation.passes,
                "seconds": seconds / len(rows),
                "stage_weights": None if weights is None else weights[i].tolist(),
            }
        )
    good = [i for i, status in enumerate(explanation.status) if status == "ok"]
    if good:
        chosen = [places[i] for i in good]
        # Measured on what is stored, so that a reader of the store can repeat it.
        stored = explanation.maps[good].half().float()
        metrics = evaluate(
            classifier, loaded.images[chosen], stored, explanation.targets[good], loaded.regions[chosen], config.metrics, batch=batch
        )
        for name, values in metrics.values.items():
            for i, value in zip(good, values.tolist(), strict=True):
                records[i][name] = None if value != value else value
    return records
