"""Memory and time of an audit of many synthetic maps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.steps import peak_mib
from benchmarks.write_worker import synthetic_facts, synthetic_maps, synthetic_records
from pipeline.audit import audit_run
from pipeline.config.load import load_config
from pipeline.datasets import Sample
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore

_SIDE, _SHARD = 56, 1000


def bench_synthetic(images: int, classes: int, show: Callable[[str], None]) -> dict[str, Any]:
    """Write a run of random coarse maps, and audit it without forward passes.

    Every tenth image of class 0 has a bright top-left corner.

    Returns:
        Images, classes, seconds of writing and of the audit, the process's memory in MiB before the audit and at its peak, and the classes
        in which the audit suspects a place.
    """
    with tempfile.TemporaryDirectory(prefix="hdm-bench-") as folder:
        config = load_config(
            {
                "name": "synthetic",
                "dataset": {"kind": "folder", "root": "/photographs"},
                "classifier": {"arch": "mobilenet_v2"},
                "methods": ["grad_cam"],
                "compute": {"shard_size": _SHARD},
                "output": folder,
            }
        )
        samples = [Sample(f"{row:07d}.jpg", f"/photographs/{row:07d}.jpg") for row in range(images)]
        shards = [Shard(number, first, min(first + _SHARD, images)) for number, first in enumerate(range(0, images, _SHARD))]
        store = RunStore.from_config(config)
        start = time.perf_counter()
        store.create(Plan(config, samples, shards, (_SIDE, _SIDE), "0" * 64, {"grad_cam": 1}))
        pool = synthetic_maps(_SHARD, _SIDE)
        for shard in shards:
            maps = np.random.default_rng(shard.index).permutation(pool)[: len(shard)]
            labels = np.arange(shard.start, shard.stop) % classes
            marked = (labels == 0) & (np.arange(shard.start, shard.stop) // classes % 10 == 0)
            maps[marked, : _SIDE // 8, : _SIDE // 8] += 3
            records = synthetic_records(config, shard, samples[shard.start : shard.stop])
            records = [
                replace(record, target=int(label), target_name=f"class {label}") for record, label in zip(records, labels, strict=True)
            ]
            store.write_shard(shard, {"grad_cam": maps}, records, synthetic_facts(shard), config)
        written, before = time.perf_counter() - start, peak_mib()
        show(f"{images:,} maps of {classes:,} classes were written in {written:.0f} s")
        start = time.perf_counter()
        found = audit_run(store, causal=False)
        seconds = time.perf_counter() - start
    suspected = [finding.class_name for finding in found.findings if finding.kind == "spatial"]
    return {
        "images": images,
        "classes": classes,
        "seconds_to_write": written,
        "seconds": seconds,
        "maps_read": found.images,
        "peak_mib_before": before,
        "peak_mib": peak_mib(),
        "suspected": suspected,
    }
