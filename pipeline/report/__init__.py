"""HTML report of a run."""

from hdm_core.heatmap import overlay
from pipeline.report.page import write_report

__all__ = ["overlay", "write_report"]
