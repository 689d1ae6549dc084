"""Sanity checks of a configuration's methods on its classifier and images."""

from pipeline.sanity.limits import SanityLimits
from pipeline.sanity.row import Row
from pipeline.sanity.run import SanityResult, run_sanity
from pipeline.sanity.write import write_sanity

__all__ = ["Row", "SanityLimits", "SanityResult", "run_sanity", "write_sanity"]
