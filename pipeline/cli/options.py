"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.config.schema import RunConfig

Config = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help="a YAML file, or the name of a preset such as demo")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="the run's folder or URL, the one that holds run.json")]
Output = Annotated[str | None, typer.Option(help="the folder or URL where runs are stored")]
Root = Annotated[str | None, typer.Option(help="the dataset's root, for presets that have none")]
Limit = Annotated[int | None, typer.Option(min=1, help="maximum number of images")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key, such as compute.workers=2")]
Json = Annotated[bool, typer.Option("--json", help="print facts as one JSON object on standard output")]


def configuration(
    source: str | Mapping[str, Any], output: str | None, root: str | None, limit: int | None, assignments: list[str] | None
) -> RunConfig:
    """Load a run's configuration, changed by the options.

    Raises:
        InputError: if it cannot be read or is not valid.
    """
    from pipeline.config.load import load_config

    return load_config(source, given_changes({"output": output, "dataset.root": root, "dataset.limit": limit}, assignments))


def given_changes(options: Mapping[str, Any], assignments: list[str] | None) -> dict[str, Any]:
    """Combine the assignments of `--set` with the options that were given.

    Options take precedence.

    Raises:
        InputError: if an assignment is not KEY=VALUE.
    """
    from pipeline.config.load import parse_changes

    return {**parse_changes(assignments or []), **{key: value for key, value in options.items() if value is not None}}
