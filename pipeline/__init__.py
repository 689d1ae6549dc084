"""The data: datasets, plans, workers, the store, tables and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.runs.xarray import open_run

__all__ = ["open_run"]


def __getattr__(name: str) -> Any:
    """`pipeline.open_run`, without every command paying for xarray."""
    if name == "open_run":
        from pipeline.runs.xarray import open_run

        return open_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
