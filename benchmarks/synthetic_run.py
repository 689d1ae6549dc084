"""Finished runs of any size without maps, for benchmarks of their readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.write_worker import synthetic_facts
from hdm_core.metrics.registry import chosen_metrics
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore
from pipeline.runs.images import FACTS
from pipeline.runs.records import RECORDS, to_parquet
from pipeline.runs.requested import written_columns
from pipeline.runs.store import commit_name
from pipeline.storage.objects import to_json

_CLASSES = 1000


def write_run(images: int, shard_size: int, methods: tuple[str, ...], folder: Path) -> str:
    """Write a finished run without maps, and return its URL.

    It has records, image facts and commits. A fifth of the images is answered wrongly, and a hundredth of the maps is flat.
    """
    config = RunConfig.model_validate(
        {
            "name": "million",
            "dataset": {"kind": "folder", "root": str(folder)},
            "classifier": {"arch": "mobilenet_v2"},
            "methods": list(methods),
            "compute": {"shard_size": shard_size},
            "output": str(folder),
        }
    )
    samples = [
        Sample(
            f"photographs/{row // 1000:05d}/{row:09d}.jpg", f"{folder}/{row:09d}.jpg", row % _CLASSES, f"class {row % _CLASSES:03d}", "test"
        )
        for row in range(images)
    ]
    shards = [Shard(index, start, min(start + shard_size, images)) for index, start in enumerate(range(0, images, shard_size))]
    store = RunStore.from_config(config)
    store.create(Plan(config, samples, shards, (224, 224), "f" * 64, dict.fromkeys(methods, 12)))
    draw = np.random.default_rng(0)
    schema = written_columns(RECORDS, chosen_metrics(None))
    for shard in shards:
        store.storage.write(f"records/part-{shard.index:06d}.parquet", to_parquet(_records(shard, samples, methods, draw), schema))
        store.storage.write(f"images/part-{shard.index:06d}.parquet", to_parquet(synthetic_facts(shard), FACTS))
        store.storage.write(commit_name(shard.index), to_json({"shard": shard.index, "rows": [shard.start, shard.stop]}))
    return store.url


def _records(shard: Shard, samples: list[Sample], methods: tuple[str, ...], draw: np.random.Generator) -> dict[str, Any]:
    """Return a shard's records as columns: one row per image and method."""
    rows = np.repeat(np.arange(shard.start, shard.stop), len(methods))
    wrong = draw.random(len(rows)) < 0.2
    targets = np.where(wrong, draw.integers(0, _CLASSES, len(rows)), rows % _CLASSES)
    numbers = {name: draw.random(len(rows), np.float32) for name in ("probability", "seconds", *chosen_metrics(None))}
    return {
        "row": rows,
        "run": ["million"] * len(rows),
        "shard": [shard.index] * len(rows),
        "image_id": [samples[row].image_id for row in rows],
        "method": list(methods) * len(shard),
        "rank": [0] * len(rows),
        "status": np.where(draw.random(len(rows)) < 0.01, "flat", "ok").tolist(),
        "target": targets.astype(np.int32),
        "target_name": [f"class {target:03d}" for target in targets],
        "label": (rows % _CLASSES).astype(np.int32),
        "region": ["none"] * len(rows),
        "stage_weights": [[1.0] if method == "hdm" else None for method in methods] * len(shard),
        **{name: pa.array(values) for name, values in numbers.items()},
    }
