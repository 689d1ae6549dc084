"""The paper's tables of a run: what they hold, and how they are written."""

from pipeline.paper.formats import FORMATS, to_rich
from pipeline.paper.layout import paper_tables

__all__ = ["FORMATS", "paper_tables", "to_rich"]
