"""Viewer of a run: a local web app that reads and never writes."""

from pipeline.view.app import create_app
from pipeline.view.run_view import RunView
from pipeline.view.serve import serve

__all__ = ["RunView", "create_app", "serve"]
