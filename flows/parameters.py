"""Parameters of the flows, and the Prefect variables that are their defaults."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from prefect import runtime
from prefect.variables import Variable
from pydantic import Field
from slugify import slugify

Config = Annotated[str, Field(min_length=1)]
Root = Annotated[str | None, Field(min_length=1)]
Output = Annotated[str | None, Field(min_length=1)]
Limit = Annotated[int | None, Field(ge=1)]
Changes = dict[str, Any] | None
Run = Annotated[str, Field(min_length=1)]

OUTPUT_VARIABLE = "hdm_output"


def run_name() -> str:
    """Return the name of a flow run: its configuration and the time."""
    return f"{runtime.flow_run.parameters['config']} {datetime.now(UTC):%Y-%m-%d %H:%M}"


def root_variable(config: str, prefix: str = "") -> str:
    """Name the Prefect variable that holds the root of a configuration's dataset."""
    return f"{prefix}{slugify(config, separator='_')}_root"


def changes_of(config: str, root: str | None, output: str | None, limit: int | None, changes: dict[str, Any] | None) -> dict[str, Any]:
    """Collect the keys of the configuration that parameters or variables change.

    A parameter takes precedence over a variable.
    """
    output = output or Variable.get(OUTPUT_VARIABLE, default=None)
    return given_changes({"dataset.root": root_of(config, root), "output": output, "dataset.limit": limit}, changes)


def root_of(config: str, root: str | None, prefix: str = "") -> str | None:
    """Return the root of a dataset: the parameter, or else the Prefect variable."""
    value: str | None = root or Variable.get(root_variable(config, prefix), default=None)
    return value


def given_changes(given: dict[str, Any], changes: dict[str, Any] | None) -> dict[str, Any]:
    """Combine the keys that were given with other changes, which take precedence."""
    return {key: value for key, value in given.items() if value is not None} | (changes or {})


def hint(message: str, config: str, prefix: str = "") -> str:
    """Add the other ways to set a root to a message that misses one."""
    missing = "root is missing" in message
    return f"{message}, the flow's parameter root or the Prefect variable {root_variable(config, prefix)}" if missing else message
