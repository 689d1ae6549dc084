"""The science of hdm: saliency maps by Hierarchical Dynamic Masks and the methods it is compared with, and their faithfulness."""

from hdm_core.classifier import Classifier
from hdm_core.explain import Explanation, explain, explain_with
from hdm_core.methods import METHODS, ExplainJob, Method, RawMaps, get_method
from hdm_core.metrics import METRICS, Metrics, MetricSettings, evaluate
from hdm_core.preprocess import Preprocess
from hdm_core.settings import Settings

__all__ = [
    "METHODS",
    "METRICS",
    "Classifier",
    "ExplainJob",
    "Explanation",
    "Method",
    "MetricSettings",
    "Metrics",
    "Preprocess",
    "RawMaps",
    "Settings",
    "evaluate",
    "explain",
    "explain_with",
    "get_method",
]
