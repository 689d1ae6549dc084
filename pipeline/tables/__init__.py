"""The paper's tables of a run: their contents and their formats."""

from pipeline.tables.formats import FORMATS, to_rich
from pipeline.tables.paper import paper_tables

__all__ = ["FORMATS", "paper_tables", "to_rich"]
