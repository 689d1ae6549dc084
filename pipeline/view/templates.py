"""HTML rendering with the templates of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, values: Mapping[str, Any]) -> str:
    """Render a template; all values are escaped."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline", "view"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = as_number
    return environment


def as_number(value: float | None) -> str:
    """Format a number with three significant decimals, or a dash."""
    return "-" if value is None or value != value else f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.4g}"
