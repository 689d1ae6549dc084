"""Changes of a model's explanations: two runs compared image by image."""

from pipeline.drift.compare import Drift, compare
from pipeline.drift.thresholds import DriftLimits, exceeded
from pipeline.drift.write import write_drift

__all__ = ["Drift", "DriftLimits", "compare", "exceeded", "write_drift"]
