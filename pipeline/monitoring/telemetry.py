"""What a run tells Prometheus through Ray's metrics; docs/operations.md and the Grafana dashboard use these names."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

# Name, kind, what it is, labels. Prometheus sees `ray_` before a name, and `_total` after a counter's.
METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "hdm_passes": ("Counter", "passes of images through the network for masks", ("run",)),
    "hdm_images": ("Counter", "images committed, under the worst of their methods' statuses", ("run", "status")),
    "hdm_bytes_written": ("Counter", "bytes of maps, records and curves written", ("run",)),
    "hdm_shard_seconds": ("Histogram", "seconds from a shard's first image to its commit", ("run",)),
    "hdm_shards": ("Counter", "ends of a shard: done, failed (an attempt), set_aside (the last attempt)", ("run", "outcome")),
    "hdm_shards_left": ("Gauge", "shards that this driver still has to see done", ("run",)),
    "hdm_workers": ("Gauge", "workers: at work, idle, or starting (asked for, and waiting for room or for their model)", ("run", "state")),
    "hdm_workers_lost": ("Counter", "workers that were lost with a shard in work, or hung and were replaced", ("run",)),
    "hdm_lease_takeovers": ("Counter", "leases taken over from a worker that was gone or silent", ()),
    "hdm_storage_retries": ("Counter", "requests to the storage that were tried again", ()),
}

_SECONDS = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0]


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Adds to a counter of METRICS; nothing happens for an amount of 0, or where no Ray runs."""
    if amount and _is_heard():
        _metric(name).inc(amount, labels)


def show(name: str, value: float, **labels: str) -> None:
    """Sets a gauge of METRICS; nothing happens where no Ray runs."""
    if _is_heard():
        _metric(name).set(value, labels)


def observe(name: str, value: float, **labels: str) -> None:
    """Adds a value to a histogram of METRICS; nothing happens where no Ray runs."""
    if _is_heard():
        _metric(name).observe(value, labels)


def _is_heard() -> bool:
    ray = sys.modules.get("ray")  # who has not loaded Ray has none that could listen
    return ray is not None and bool(ray.is_initialized())


@cache
def _metric(name: str) -> Any:
    from ray.util import metrics

    kind, description, labels = METRICS[name]
    boundaries = {"boundaries": _SECONDS} if kind == "Histogram" else {}
    return getattr(metrics, kind)(name, description, tag_keys=labels, **boundaries)
