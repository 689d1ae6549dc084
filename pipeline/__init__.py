"""Explanation of whole datasets: configurations, plans, runs, tables, reports.

The public names are loaded when they are first used: an import of `pipeline` alone imports neither torch nor xarray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config.load import load_config
    from pipeline.config.schema import RunConfig
    from pipeline.runs import RunStore
    from pipeline.runs.xarray import open_run
    from pipeline.workflow import make_plan, measure, run

    __version__: str

__all__ = ["RunConfig", "RunStore", "__version__", "load_config", "make_plan", "measure", "open_run", "run"]

_MODULES = {
    "RunConfig": "pipeline.config.schema",
    "RunStore": "pipeline.runs",
    "load_config": "pipeline.config.load",
    "make_plan": "pipeline.workflow",
    "measure": "pipeline.workflow",
    "open_run": "pipeline.runs.xarray",
    "run": "pipeline.workflow",
}


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name == "__version__":
        from importlib.metadata import version

        return version("hdm-pipeline")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, also those that are not loaded yet."""
    return sorted({*globals(), *__all__})
