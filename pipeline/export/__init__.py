"""Export of a run's maps: on the photograph, in its pixels, and as contours."""

from pipeline.export.export import ExportSummary, export_run
from pipeline.export.settings import ExportSettings

__all__ = ["ExportSettings", "ExportSummary", "export_run"]
