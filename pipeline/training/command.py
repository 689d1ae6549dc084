"""The command `hdm train`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

_err = Console(stderr=True, width=None if sys.stderr.isatty() else 200)

Config = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help="a YAML file, or the name of a preset such as cub-mobilenet")]
Output = Annotated[str | None, typer.Option(help="where classifiers are kept: a folder or a URL")]
Root = Annotated[str | None, typer.Option(help="the dataset's root, for presets, which have none")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key, such as recipe.batch=16")]
Json = Annotated[bool, typer.Option("--json", help="facts as one JSON object on standard output")]


def train(config: Config, output: Output = None, root: Root = None, set_: Set = None, as_json: Json = False) -> None:
    """Fine-tune a classifier; running it again goes on where it was."""
    from pipeline.cluster import run_as_a_worker

    run_as_a_worker()
    from pipeline.loading import load, parse_changes
    from pipeline.progress import clock
    from pipeline.training.config import TrainConfig
    from pipeline.training.progress import on_console
    from pipeline.training.run import train as train_classifier
    from pipeline.training.run import train_presets

    given = {"output": output, "dataset.root": root}
    changes = {**parse_changes(set_ or []), **{key: value for key, value in given.items() if value is not None}}
    with on_console(_err) as show:
        trained = train_classifier(load(config, changes, TrainConfig, train_presets()), show)
    if as_json:
        sys.stdout.write(json.dumps(trained.facts(), ensure_ascii=False) + "\n")
        return
    table = Table(box=None, show_header=False)
    table.add_row("classifier", trained.url)
    for name, value in trained.card.metrics.items():
        table.add_row(name.replace("_", " "), f"{value:.4g}")
    table.add_row("time", clock(trained.seconds))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
