"""Worker of `python -m benchmarks pool` that writes and commits synthetic shards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.sleep_worker import SimulatedReport
from hdm_core.metrics.registry import chosen_metrics
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.plan import Shard
from pipeline.runs import RunStore
from pipeline.runs.leases import Lease
from pipeline.runs.records import Record

_CURVE = np.linspace(1, 0, 225, dtype=np.float32).tolist()  # as many steps as deletion takes on 224 x 224 pixels
_CELLS = 28  # along a side of a synthetic map, before upsampling


class WriteWorker:
    """Ray actor that writes maps, records and curves under a lease."""

    def __init__(self, config: RunConfig, side: int) -> None:
        self._config = config
        self._store = RunStore.from_config(config)
        self._maps = synthetic_maps(config.compute.shard_size, side)

    def ready(self) -> str:
        """Return the device, as `Worker.ready` does."""
        return "none"

    def passes(self) -> int:
        """Return 0 passes, as `Worker.passes` counts them."""
        return 0

    def run(self, shard: Shard, samples: Sequence[Sample]) -> SimulatedReport:
        """Write and commit a shard without computing it."""
        started = time.monotonic()
        lease = Lease(self._store.storage, shard.index, self._config.compute.lease_seconds)
        if lease.acquire(None) is not None:
            raise RuntimeError(f"shard {shard.index} is leased by another worker")
        with lease.renewing():
            arrays = {method: self._maps[: len(shard)] for method in self._config.methods}
            self._store.write_shard(
                shard, arrays, synthetic_records(self._config, shard, samples), synthetic_facts(shard), self._config, lease
            )
        return SimulatedReport.since(started, shard.index, len(shard))


def synthetic_maps(count: int, side: int) -> NDArray[np.float16]:
    """Draw smooth maps (count, side, side) in [0, 1]."""
    generator = np.random.default_rng(0)
    coarse = [Image.fromarray(generator.random((_CELLS, _CELLS), dtype=np.float32)) for _ in range(count)]
    return np.stack([np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float16) for image in coarse])


def synthetic_records(config: RunConfig, shard: Shard, samples: Sequence[Sample]) -> list[Record]:
    """Return one record per image and method, of class 1."""
    return [
        Record(
            run=config.name,
            shard=shard.index,
            row=row,
            image_id=sample.image_id,
            label=None,
            method=method,
            status="ok",
            target=1,
            probability=0.5,
            logit=1.0,
            metrics=dict.fromkeys(chosen_metrics(None), 0.5),
            passes=1,
            seconds=0.1,
            deletion=_CURVE,
            insertion=_CURVE,
            seed=0,
            device="none",
        )
        for row, sample in enumerate(samples, start=shard.start)
        for method in config.methods
    ]


def synthetic_facts(shard: Shard) -> list[dict[str, Any]]:
    """Return the facts of a shard's images."""
    return [
        {"row": row, "sha256": f"{row:064x}", "width": 500, "height": 375, "crop": (62.5, 0.0, 437.5, 375.0)}
        for row in range(shard.start, shard.stop)
    ]
