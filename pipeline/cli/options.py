"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Config = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help="a YAML file, or the name of a preset such as demo")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="the run's folder or URL, the one that holds run.json")]
Output = Annotated[str | None, typer.Option(help="where runs are kept: a folder or a URL")]
Root = Annotated[str | None, typer.Option(help="the dataset's root, for presets that have none")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most so many images")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key, such as compute.workers=2")]
Json = Annotated[bool, typer.Option("--json", help="facts as one JSON object on standard output")]


def configuration(
    source: str | dict[str, Any], output: str | None, root: str | None, limit: int | None, assignments: list[str] | None
) -> Any:
    """The validated configuration with what the options change.

    Raises:
        InputError: if it cannot be read or is not valid.
    """
    from pipeline.config.load import load_config, parse_changes

    given = {"output": output, "dataset.root": root, "dataset.limit": limit}
    return load_config(source, {**parse_changes(assignments or []), **{key: value for key, value in given.items() if value is not None}})
