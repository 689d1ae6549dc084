"""How faithful a map is: average drop and increase, deletion and insertion, proportion (Sections 4.5 and 4.6 of the paper)."""

from hdm_core.metrics.evaluate import METRICS, Metrics, MetricSettings, evaluate

__all__ = ["METRICS", "MetricSettings", "Metrics", "evaluate"]
