"""What the flows are asked: parameters that make a form in Prefect's interface, and the variables that stand in for them."""

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
    """A flow run's name: the dataset's configuration and the time."""
    return f"{runtime.flow_run.parameters['config']} {datetime.now(UTC):%Y-%m-%d %H:%M}"


def root_variable(config: str, prefix: str = "") -> str:
    """The Prefect variable that holds the root of a configuration's dataset."""
    return f"{prefix}{slugify(config, separator='_')}_root"


def changes_of(config: str, root: str | None, output: str | None, limit: int | None, changes: dict[str, Any] | None) -> dict[str, Any]:
    """The configuration's keys that a run's parameters and Prefect's variables change; a parameter goes before a variable."""
    output = output or Variable.get(OUTPUT_VARIABLE, default=None)
    return given_changes({"dataset.root": root_of(config, root), "output": output, "dataset.limit": limit}, changes)


def root_of(config: str, root: str | None, prefix: str = "") -> str | None:
    """The root of a configuration's dataset: the parameter, or the variable."""
    found: str | None = root or Variable.get(root_variable(config, prefix), default=None)
    return found


def given_changes(given: dict[str, Any], changes: dict[str, Any] | None) -> dict[str, Any]:
    """The keys that were given, and the other changes, which go before them."""
    return {key: value for key, value in given.items() if value is not None} | (changes or {})


def hint(message: str, config: str, prefix: str = "") -> str:
    """A message with where else a root can be given, if that is what is missing."""
    missing = "root is missing" in message
    return f"{message}, the flow's parameter root or the Prefect variable {root_variable(config, prefix)}" if missing else message
