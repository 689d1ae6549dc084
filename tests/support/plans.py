"""Small photographs, configurations and plans without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hdm_core import METRICS
from hdm_core.metrics.registry import chosen_metrics
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.errors import InputError
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore
from pipeline.runs.records import Record

# Settings of DM and HDM for images of 16 x 16 pixels.
DM = {"preset": "fast", "sizes": [2, 5], "ratios": [2], "steps": 3, "learning_rate": 0.1, "eta": 0.02}
HDM = {**DM, "stages": 2, "mix_steps": 3}

SIDE = 8  # pixels of the random maps of `results`


def refused(action: Callable[[], object]) -> str:
    """Return the InputError's message of an action; it must be one line."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert len(message) < 600
    return message


def save_picture(path: Path, width: int = 24, height: int = 20, seed: int = 0) -> Path:
    """Save a seeded photograph: a bright rectangle on noise."""
    noise = np.random.default_rng(seed)
    pixels = noise.integers(0, 120, (height, width, 3))
    top, left = noise.integers(0, height // 2), noise.integers(0, width // 2)
    pixels[top : top + height // 3, left : left + width // 3] += noise.integers(60, 130, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def mapping(**changes: Any) -> dict[str, Any]:
    """Return a valid configuration as a mapping, with some top-level keys replaced."""
    return {
        "name": "tiny",
        "dataset": {"kind": "folder", "root": "photographs"},
        "classifier": {"arch": "squeezenet1_1", "resize": 32, "crop": 32},
        "methods": ["hdm", "grad_cam"],
        "hdm": dict(HDM),
        "compute": {"shard_size": 2},
        "output": "runs",
        **changes,
    }


def configuration(changes: dict[str, Any] | None = None, **keys: Any) -> RunConfig:
    """Return the same configuration, validated; `changes` have dotted keys."""
    return load_config(mapping(**keys), changes)


def plan_of(config: RunConfig, images: int = 5, side: int = SIDE, fingerprint: str = "f" * 64) -> Plan:
    """Return a plan over images that do not exist."""
    samples = [Sample(f"{i}.png", f"photographs/{i}.png", label=i % 2, class_name="ab"[i % 2]) for i in range(images)]
    size = config.compute.shard_size
    shards = [Shard(index, start, min(start + size, images)) for index, start in enumerate(range(0, images, size))]
    return Plan(config, samples, shards, (side, side), fingerprint, dict.fromkeys(config.methods, 1))


def results(plan: Plan, shard: Shard) -> tuple[dict[str, NDArray[np.float16]], list[Record], list[dict[str, Any]]]:
    """Return random arrays, records and image facts of a shard, equal in every call."""
    noise = np.random.default_rng(shard.index)
    shapes: dict[str, tuple[int, ...]] = {method: (len(shard), *plan.size) for method in plan.config.methods}
    if plan.stages:
        shapes["hdm_stages"] = (len(shard), plan.stages, *plan.size)
    arrays = {name: noise.random(shape).astype(np.float16) for name, shape in shapes.items()}
    records = [
        record(plan, shard, row, method, **{metric: float(noise.random()) for metric in chosen_metrics(None)})
        for row in range(shard.start, shard.stop)
        for method in plan.config.methods
    ]
    facts = [
        {"row": row, "sha256": f"{row:064d}", "width": 24, "height": 20, "crop": (2.0, 0.0, 22.0, 20.0)}
        for row in range(shard.start, shard.stop)
    ]
    return arrays, records, facts


def record(plan: Plan, shard: Shard, row: int, method: str, **changes: Any) -> Record:
    """Return the record of an image with status ok."""
    ok = Record(
        run=plan.config.name,
        shard=shard.index,
        row=row,
        image_id=plan.samples[row].image_id,
        method=method,
        status="ok",
        target=1,
        target_name="b",
        label=plan.samples[row].label,
        probability=0.75,
        logit=2.5,
        passes=1,
        seconds=0.25,
        stage_weights=[0.75, 0.25] if method == "hdm" else None,
        deletion=[1.0, 0.5, 0.25],
        insertion=[0.25, 0.5, 1.0],
        seed=0,
        device="cpu",
    )
    return with_changes(ok, changes)


def with_changes(record: Record, changes: Mapping[str, Any]) -> Record:
    """Return a record with some columns, also of metrics, replaced."""
    metrics = {name: value for name, value in changes.items() if name in METRICS}
    fields = {name: value for name, value in changes.items() if name not in METRICS}
    return replace(record, metrics={**record.metrics, **metrics}, **fields)


def write_all(store: RunStore, plan: Plan) -> None:
    """Commit every shard of a plan with random results."""
    for shard in plan.shards:
        assert store.write_shard(shard, *results(plan, shard), plan.config)


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
