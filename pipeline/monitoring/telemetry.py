"""Prometheus metrics of a run, exported by Ray.

docs/operations.md and the Grafana dashboard use these names.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

# name -> (kind, description, labels). Prometheus sees the name with the prefix `ray_`, a counter's also with the suffix `_total`.
METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "hdm_passes": ("Counter", "passes of images through the network for masks", ("run",)),
    "hdm_images": ("Counter", "images committed, under the worst of their methods' statuses", ("run", "status")),
    "hdm_bytes_written": ("Counter", "bytes of maps, records and curves written", ("run",)),
    "hdm_shard_seconds": ("Histogram", "seconds from a shard's first image to its commit", ("run",)),
    "hdm_explain_seconds": ("Counter", "seconds in which workers explained and measured images", ("run",)),
    "hdm_wait_seconds": ("Counter", "seconds in which workers waited for images to be read, and the network did nothing", ("run",)),
    "hdm_shards": ("Counter", "ends of a shard: done, failed (an attempt), set_aside (the last attempt)", ("run", "outcome")),
    "hdm_shards_left": ("Gauge", "shards that this driver has not yet seen committed", ("run",)),
    "hdm_workers": (
        "Gauge",
        "workers: at work, idle, or starting (requested; waiting for resources or loading the model)",
        ("run", "state"),
    ),
    "hdm_workers_lost": ("Counter", "workers that were lost while they worked on a shard, or were replaced because they hung", ("run",)),
    "hdm_lease_takeovers": ("Counter", "leases taken over from a worker that was gone or no longer renewed them", ()),
    "hdm_storage_retries": ("Counter", "storage requests that were retried", ()),
}

_SECONDS = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0]


def count(name: str, amount: float = 1, **labels: str) -> None:
    """Add to a counter of METRICS; do nothing if the amount is 0 or no Ray runs."""
    if amount and _ray_runs():
        _metric(name).inc(amount, labels)


def set_gauge(name: str, value: float, **labels: str) -> None:
    """Set a gauge of METRICS; do nothing if no Ray runs."""
    if _ray_runs():
        _metric(name).set(value, labels)


def observe(name: str, value: float, **labels: str) -> None:
    """Add a value to a histogram of METRICS; do nothing if no Ray runs."""
    if _ray_runs():
        _metric(name).observe(value, labels)


def _ray_runs() -> bool:
    ray = sys.modules.get("ray")  # a process that has not imported Ray exports nothing
    return ray is not None and bool(ray.is_initialized())


@cache
def _metric(name: str) -> Any:
    from ray.util import metrics

    kind, description, labels = METRICS[name]
    boundaries = {"boundaries": _SECONDS} if kind == "Histogram" else {}
    return getattr(metrics, kind)(name, description, tag_keys=labels, **boundaries)
