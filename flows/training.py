"""The flow `hdm-train`: a fine-tuned classifier from a configuration."""

from __future__ import annotations

import logging
from typing import Any, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from slugify import slugify

from flows.artifacts import TrainingArtifact, classifier_artifact
from flows.parameters import Changes, Config, Output, Root, given_changes, hint, root_of, run_name
from pipeline.config.load import load
from pipeline.errors import InputError
from pipeline.training.config import TrainConfig
from pipeline.training.run import Trained, train_presets
from pipeline.training.run import train as train_classifier

_PREFIX = "train_"  # of the variable: a run and a training of one name may have different roots


@task(name="train", cache_policy=NO_CACHE)
def train(config: str, changes: dict[str, Any]) -> Trained | State[Any]:
    """Trains from where the classifier's folder is; running the flow again goes on where it was."""
    try:
        training = load(config, changes, TrainConfig, train_presets())
        return train_classifier(training, TrainingArtifact(slugify(f"{training.name} training")))
    except InputError as error:  # somebody's mistake: one line in the interface, no traceback
        return Failed(message=str(error))


@flow(name="hdm-train", flow_run_name=run_name)
def hdm_train(config: Config = "cub-mobilenet", root: Root = None, output: Output = None, changes: Changes = None) -> State[Any]:
    """Fine-tunes a classifier.

    Args:
        config: a preset such as cub, palm or cub-mobilenet, or the path or URL of a YAML file.
        root: the dataset's root. Where it is not given, the Prefect variable named after the preset is taken, such as train_cub_root.
        output: where classifiers are kept, a folder or a URL.
        changes: other keys of the configuration, such as {"recipe.batch": 16}.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    given = {"dataset.root": root_of(config, root, _PREFIX), "output": output}
    training = train(config, given_changes(given, changes), return_state=True)
    if training.is_failed():
        return Failed(message=hint(str(training.message), config, _PREFIX))
    trained = cast("Trained", training.result())
    classifier_artifact(slugify(f"{trained.card.arch} classifier"), trained)
    found = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in trained.card.metrics.items() if name.endswith("accuracy"))
    return Completed(message=f"{trained.url}: {found or 'nothing was held back'}")
