"""Runs on storage without a network, and their report pages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hdm_core import Preprocess
from hdm_core.metrics.registry import chosen_metrics
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.plan import Plan, Shard
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.runs.maps import array_shapes
from pipeline.runs.records import Record
from tests.support.plans import with_changes

SIDE = 16


PREPROCESS = Preprocess(resize=20, crop=SIDE)

Changes = Mapping[tuple[int, str], dict[str, Any]]  # (row, method) -> changed columns of its record


def photograph(path: Path, row: int) -> str:
    """Write an image of 48 x 30 pixels with an edge in it; return its sha256."""
    pixels = np.zeros((30, 48, 3), np.uint8)
    pixels[:, :, row % 3] = np.linspace(0, 255, 48, dtype=np.uint8)
    pixels[10:20] = 255 - pixels[10:20]
    Image.fromarray(pixels).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stored_run(
    folder: Path,
    images: int = 3,
    methods: tuple[str, ...] = ("hdm", "grad_cam"),
    committed: int | None = None,
    changes: Changes | None = None,
    names: Mapping[int, str] | None = None,
) -> RunStore:
    """Write a run with one image per shard, of which the first `committed` are done."""
    dataset = {"kind": "folder", "root": str(folder)}
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "dataset": dataset,
            "classifier": {"arch": "some_net"},
            "methods": methods,
            "hdm": {"stages": 2},
            "compute": {"shard_size": 1},
            "output": str(folder),
            "seed": 7,
        }
    )
    named = {row: (f"bird-{row}", "wren") for row in range(images)} | {row: (name, name) for row, name in (names or {}).items()}
    samples = [Sample(image_id, str(folder / f"{row}.png"), row, class_name) for row, (image_id, class_name) in named.items()]
    plan = Plan(config, samples, [Shard(row, row, row + 1) for row in range(images)], (SIDE, SIDE), "f" * 64, dict.fromkeys(methods, 12))
    store = RunStore.from_config(config)
    store.create(plan)
    draw = np.random.default_rng(0)
    for shard in plan.shards[:committed]:
        row = shard.index
        sha256 = photograph(folder / f"{row}.png", row)
        shapes = array_shapes(methods, 1, (SIDE, SIDE), plan.stages)
        arrays = {name: draw.random(shape).astype(np.float16) for name, shape in shapes.items()}
        records = [
            make_record(config, row, samples[row], method, plan.stages, (changes or {}).get((row, method), {})) for method in methods
        ]
        facts = {"row": row, "sha256": sha256, "width": 48, "height": 30, "crop": PREPROCESS.crop_box(48, 30)}
        store.write_shard(shard, arrays, records, [facts], config)
    return store


def make_record(config: RunConfig, row: int, sample: Sample, method: str, stages: int | None, changes: Mapping[str, Any]) -> Record:
    ok = {
        "status": "ok",
        "target": 5,
        "target_name": "Jenny wren",
        "probability": 0.625,
        "seconds": 0.5,
        "stage_weights": [1 / stages] * stages if stages and method == "hdm" else None,
        **dict.fromkeys(chosen_metrics(None), 0.25 if method == "hdm" else 0.5),
        "deletion": [0.5, 0.25, 0.0],
        "insertion": [0.0, 0.5, 0.5],
    }
    bad = changes.get("status", "ok") != "ok"
    place = {"run": config.name, "shard": row, "row": row, "image_id": sample.image_id, "label": sample.label, "method": method}
    empty = Record(**place, status="ok", seed=config.seed, device="cpu")
    return with_changes(empty, {**({} if bad else ok), **changes})


def page_of(store: RunStore, limit: int = 24) -> str:
    write_report(store, limit)
    return store.storage.read("report/index.html").decode()


def gallery_of(page: str) -> str:
    """Return the page from its gallery on."""
    return page.partition('id="gallery"')[2]


def unreadable(row: int, methods: tuple[str, ...] = ("hdm", "grad_cam"), error: str = "the file is empty") -> Changes:
    return {(row, method): {"status": "unreadable", "error": error} for method in methods}
