"""One shard's work: read its images, explain and measure them, give arrays and records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdm_core import Classifier, explain_with
from hdm_core.device import default_batch, device_name
from hdm_core.settings import HDMSettings
from pipeline.classifiers.load import preprocess_of
from pipeline.classifiers.targets import MapFailure, MapRequest, request_maps
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.datasets.batches import LoadedSample, read_batches
from pipeline.errors import one_line
from pipeline.explain.measure import MethodResult, measure
from pipeline.plan import Shard
from pipeline.runs.maps import STAGES, layout
from pipeline.runs.reused import ReusedResults

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ShardResult:
    """What a shard leaves: arrays of its rows, records in row order, and what reading the images told."""

    arrays: dict[str, NDArray[np.float16]]
    records: list[dict[str, Any]]
    image_facts: list[dict[str, Any]]


def explain_shard(
    classifier: Classifier,
    config: RunConfig,
    shard: Shard,
    samples: Sequence[Sample],
    progress: Progress | None = None,
    batch: int | None = None,
    kept: ReusedResults | None = None,
) -> ShardResult:
    """Explains the samples of a shard with every method of the configuration.

    An image that cannot be read, or on which a method fails, becomes records with that status; its maps are zeros.

    Args:
        batch: how many images go through the network at once; None takes the configuration's, or the device's.
        kept: what an earlier run holds already.
    """
    kept = kept or ReusedResults()
    preprocess = preprocess_of(classifier)
    batch = batch or config.compute.fixed_batch_size or default_batch(classifier.device)
    stages = next((s.stages for s in config.settings.values() if isinstance(s, HDMSettings)), None)
    ranks = config.ranks
    shapes = layout(config.methods, len(shard), preprocess.crop, stages, ranks)
    arrays = {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}
    for name, rows_of in kept.maps.items():
        arrays[name][list(rows_of)] = list(rows_of.values())
    rows_left = [row for row in range(len(samples)) if not all(kept.has(row, method) for method in config.methods)]
    facts = [{"row": shard.start + row, **kept.image_facts[row]} for row in sorted({*range(len(samples))} - {*rows_left})]
    outcomes = dict(kept.outcomes)

    for items in read_batches(
        samples, config.storage, preprocess, max(1, batch // ranks), rows_left, timeout=config.compute.storage_timeout
    ):
        seen = [item for item in items if isinstance(item, LoadedSample)]
        for item in items:
            facts.append({"row": shard.start + item.row} | item.image_facts)
            if not isinstance(item, LoadedSample):
                unseen = {"status": "unreadable", "error": item.error}
                outcomes |= {(item.row, m, rank): unseen for m in config.methods if not kept.has(item.row, m) for rank in range(ranks)}
        if not seen:
            continue
        images = classifier.prepare([item.image.image for item in seen])
        chosen = request_maps(config.target, classifier, [samples[item.row] for item in seen], images)
        wanted = [item for item in chosen if isinstance(item, MapRequest)]
        explained: list[MethodResult] = []
        for method in config.methods:
            found = [item for item in chosen if isinstance(item, MapFailure) and not kept.has(seen[item.request.place].row, method)]
            todo = [item for item in wanted if not kept.has(seen[item.place].row, method)]
            for result in _explain(classifier, config, images, todo, method, batch, progress):
                if isinstance(result, MapFailure):
                    found.append(result)
                    continue
                explained.append(result)
                rows = [seen[item.place].row for item in result.requests]
                where = (rows, [item.rank for item in result.requests]) if ranks > 1 else (rows,)
                arrays[method][where] = result.explanation.maps.half().cpu().numpy()
                if result.explanation.stages is not None:
                    arrays[STAGES][where] = result.explanation.stages.nan_to_num(0).half().cpu().numpy()
            for failed in found:
                outcomes[seen[failed.request.place].row, method, failed.request.rank] = {"status": "failed", "error": failed.error}
        regions, kinds = torch.stack([item.region for item in seen]), [item.kind for item in seen]
        measured = measure(classifier, images, regions, kinds, explained, config.metrics, batch)
        outcomes.update({(seen[item.place].row, method, item.rank): record for (item, method), record in measured.items()})

    common = {"run": config.name, "shard": shard.index, "seed": config.seed, "device": device_name(classifier.device)}
    common |= {"region": "none", "passes": 0}
    records = [
        {
            **common,
            "row": shard.start + row,
            "image_id": sample.image_id,
            "method": method,
            "rank": rank,
            "label": sample.label,
            **outcomes[row, method, rank],
        }
        for row, sample in enumerate(samples)
        for method in config.methods
        for rank in range(ranks)
    ]
    return ShardResult(arrays, records, sorted(facts, key=itemgetter("row")))


def _explain(
    classifier: Classifier,
    config: RunConfig,
    images: Tensor,
    wanted: Sequence[MapRequest],
    method: str,
    batch: int,
    progress: Progress | None,
) -> Iterator[MethodResult | MapFailure]:
    """Maps of the images (B, C, H, W) by one method: some of them at a time.

    Where the method fails on all together it goes on map by map, so that one image costs no other its map.
    """
    attempts = [list(wanted)] if wanted else []
    while attempts:
        some = attempts.pop(0)
        targets = [item.target for item in some if item.target is not None] or None  # all are given, or none is
        begin = time.perf_counter()
        try:
            explanation = explain_with(
                classifier,
                images[[item.place for item in some]],
                method,
                config.settings[method],
                targets,
                batch=batch,
                precision=config.compute.fixed_precision,
                progress=progress,
            )
        except Exception as error:  # whatever a user's network raises belongs to this image, not to the run
            if len(some) > 1:
                attempts = [[item] for item in some]
            else:
                yield MapFailure(some[0], f"{type(error).__name__}: {one_line(error)}")
            continue
        yield MethodResult(method, some, explanation, (time.perf_counter() - begin) / len(some))
