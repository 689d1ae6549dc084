"""The command `hdm train`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import err, print_facts, print_json
from pipeline.cli.options import Json

Config = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help="a YAML file, or the name of a preset such as cub-mobilenet")]
Output = Annotated[str | None, typer.Option(help="where classifiers are kept: a folder or a URL")]
Root = Annotated[str | None, typer.Option(help="the dataset's root, for presets, which have none")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change a key, such as recipe.batch=16")]


def train(config: Config, output: Output = None, root: Root = None, set_: Set = None, as_json: Json = False) -> None:
    """Fine-tune a classifier; running it again goes on where it was."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from pipeline.config.load import load, parse_changes
    from pipeline.monitoring.progress import clock
    from pipeline.training.config import TrainConfig
    from pipeline.training.progress import on_console
    from pipeline.training.run import train as train_classifier
    from pipeline.training.run import train_presets

    given = {"output": output, "dataset.root": root}
    changes = {**parse_changes(set_ or []), **{key: value for key, value in given.items() if value is not None}}
    with on_console(err) as show:
        trained = train_classifier(load(config, changes, TrainConfig, train_presets()), show)
    if as_json:
        print_json(trained.as_dict())
        return
    metrics = {name.replace("_", " "): f"{value:.4g}" for name, value in trained.card.metrics.items()}
    print_facts({"classifier": trained.url, **metrics, "time": clock(trained.seconds)})
