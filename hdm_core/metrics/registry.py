"""The registry of metrics, in the order of tables and pages."""

from __future__ import annotations

from hdm_core.metrics.base import Metric
from hdm_core.metrics.confidence import AVERAGE_DROP_70, AVERAGE_DROP_80, INCREASE_70, INCREASE_80
from hdm_core.metrics.curves import DELETION_AUC, INSERTION_AUC
from hdm_core.metrics.localisation import PROPORTION
from hdm_core.registry import Registry

# Installed packages add theirs by the entry points `hdm.metrics`.
METRICS: Registry[Metric] = Registry(
    "hdm.metrics",
    Metric,
    (
        AVERAGE_DROP_80,
        AVERAGE_DROP_70,
        INCREASE_80,
        INCREASE_70,
        DELETION_AUC,
        INSERTION_AUC,
        PROPORTION,
    ),
)


def metric_title(name: str) -> str:
    """Return a metric's title; its id if it is not installed here."""
    return METRICS[name].title if name in METRICS else name
