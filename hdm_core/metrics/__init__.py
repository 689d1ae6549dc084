"""Metrics of maps: average drop, increase, deletion, insertion, proportion.

Sections 4.5 and 4.6 of the paper.
"""

from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.evaluate import Metrics, evaluate
from hdm_core.metrics.registry import METRICS, metric_title
from hdm_core.metrics.settings import MetricSettings

__all__ = ["METRICS", "Metric", "MetricInput", "MetricSettings", "Metrics", "evaluate", "metric_title"]
