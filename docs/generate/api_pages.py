"""API pages: one mkdocstrings directive per public name of a package's `__all__`."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

PACKAGES = {
    "hdm_core": "Methods, metrics and classifiers: torch only.",
    "hdm_core.testing": "Contract suites for methods and metrics of your own.",
    "pipeline": "Configure, plan, execute and read a run.",
    "pipeline.datasets": "Dataset kinds and their samples.",
    "pipeline.drift": "Comparison of two runs.",
    "pipeline.audit": "Findings in the maps of a run.",
    "pipeline.sanity": "Sanity checks of methods.",
    "pipeline.export": "A run's maps as files.",
    "pipeline.view": "A run in the browser.",
}


def api_page(package: str) -> str:
    """Build the page of a package."""
    module = importlib.import_module(package)
    documented, values = [], []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            documented.append(f"::: {value.__module__}.{value.__qualname__}")
        elif not name.startswith("__"):
            values.append(f"- `{name}`: {_describe(value)}")
    parts = [f"# `{package}`", PACKAGES[package], _example(package), *documented]
    if values:
        parts += ["## Values", "\n".join(values)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _describe(value: Any) -> str:
    """Describe a value by its type, and its keys if it is a registry."""
    keys = f" with the entries {', '.join(f'`{key}`' for key in value)}" if hasattr(value, "keys") else ""
    return f"{type(value).__name__}{keys}"


def _example(package: str) -> str:
    return f"Import these names from `{package}`; where they are defined may change."
