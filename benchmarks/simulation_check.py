"""Comparison of the simulation with real runs of sleeping workers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.pool import bench_sleep
from benchmarks.simulation import Model, simulate

_SHARDS, _SIZE, _IMAGE_SECONDS = 8, 32, 0.05  # of each worker: 12.8 s


@dataclass(frozen=True)
class Checked:
    """Seconds of a real and of a simulated run, from the first shard to the last.

    Attributes:
        error: of the simulation, as a share of the real seconds.
    """

    workers: int
    real_seconds: float
    simulated_seconds: float
    error: float

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the comparison."""
        return asdict(self)


def check_simulation(workers: int) -> Checked:
    """Run sleeping workers on a real Ray and simulate the same; the real gap counts."""
    real = bench_sleep(workers, workers * _SHARDS, _SIZE, _IMAGE_SECONDS)
    model = Model(
        image_seconds=_IMAGE_SECONDS,
        shard_size=_SIZE,
        workers_per_gpu=1,
        shard_spread=0.0,
        start_seconds=0.0,
        gap_seconds=real.gap_ms / 1e3,
        request_seconds=0.0,
        preemptions_per_hour=0.0,
    )
    found = simulate(workers * _SHARDS * _SIZE, workers, model)
    return Checked(workers, real.seconds, found.seconds, found.seconds / real.seconds - 1)
