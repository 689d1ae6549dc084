"""Command `hdm train`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.console import err, print_facts, print_json
from pipeline.cli.options import Json, Set, given_changes

Config = Annotated[str, typer.Argument(metavar="CONFIG|PRESET", help="a YAML file, or the name of a preset such as cub-mobilenet")]
Output = Annotated[str | None, typer.Option(help="the folder or URL where classifiers are stored")]
Root = Annotated[str | None, typer.Option(help="the dataset's root, for presets, which have none")]


def train(config: Config, output: Output = None, root: Root = None, set_: Set = None, as_json: Json = False) -> None:
    """Fine-tune a classifier; the same command again resumes it."""
    from pipeline.execution.cluster import reexec_with_worker_env

    reexec_with_worker_env()
    from pipeline.config.load import load
    from pipeline.monitoring.progress import clock, progress_bar
    from pipeline.training.config import TrainConfig
    from pipeline.training.run import train as train_classifier
    from pipeline.training.run import train_presets

    changes = given_changes({"output": output, "dataset.root": root}, set_)
    with progress_bar(err) as on_progress:
        trained = train_classifier(load(config, changes, TrainConfig, train_presets()), on_progress)
    if as_json:
        print_json(trained.as_dict())
        return
    metrics = {name.replace("_", " "): f"{value:.4g}" for name, value in trained.card.metrics.items()}
    print_facts({"classifier": trained.url, **metrics, "time": clock(trained.seconds)})
