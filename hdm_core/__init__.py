"""Saliency maps by HDM and other methods, and metrics of their faithfulness.

HDM are the Hierarchical Dynamic Masks of Peng, Yang, Liu and He, arXiv 2301.04970.
"""

from importlib.metadata import PackageNotFoundError, version

from hdm_core.baseline_contrast import measure_baselines
from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.evidence import Evidence, EvidenceSettings, Piece, find_evidence
from hdm_core.explain import explain, explain_with
from hdm_core.explanation import Explanation
from hdm_core.masking.baseline_scores import BaselineScores
from hdm_core.methods import METHODS, PAPER_METHODS, ExplainJob, Method, RawMaps, controls_last, get_method, is_control, method_title
from hdm_core.metrics import METRICS, Metric, MetricInput, Metrics, MetricSettings, evaluate, metric_title
from hdm_core.preflight import CheckResult, check
from hdm_core.preprocess import Preprocess
from hdm_core.settings import Settings

try:
    __version__ = version("hdm-pipeline")
except PackageNotFoundError:  # a checkout on the path that is not installed
    __version__ = "0+unknown"

__all__ = [
    "METHODS",
    "METRICS",
    "PAPER_METHODS",
    "BaselineScores",
    "CheckResult",
    "Classifier",
    "Evidence",
    "EvidenceSettings",
    "ExplainJob",
    "Explanation",
    "Finding",
    "Method",
    "Metric",
    "MetricInput",
    "MetricSettings",
    "Metrics",
    "Piece",
    "Preprocess",
    "RawMaps",
    "Settings",
    "__version__",
    "check",
    "controls_last",
    "evaluate",
    "explain",
    "explain_with",
    "find_evidence",
    "get_method",
    "is_control",
    "measure_baselines",
    "method_title",
    "metric_title",
]
