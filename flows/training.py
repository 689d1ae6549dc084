"""Flow `hdm-train`: fine-tune a classifier."""

from __future__ import annotations

import logging
import os
from typing import Any, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from slugify import slugify

from flows.artifacts import classifier_artifact, progress_artifact
from flows.parameters import Changes, Config, Output, Root, given_changes, hint, root_of, run_name
from pipeline.config.load import load
from pipeline.environment import bypass_proxies_on_loopback
from pipeline.errors import InputError
from pipeline.training.config import TrainConfig
from pipeline.training.run import Trained, train, train_presets

_PREFIX = "train_"  # of the Prefect variable: a run and a training with the same name may have different roots


@task(name="train", cache_policy=NO_CACHE)
def train_classifier(training: TrainConfig) -> Trained | State[Any]:
    """Train a classifier, from its last saved epoch on."""
    try:
        return train(training, progress_artifact(slugify(f"{training.name} training"), "epochs trained"))
    except InputError as error:  # a mistake of the user: one line in the interface, no traceback
        return Failed(message=str(error))


@flow(name="hdm-train", flow_run_name=run_name)
def hdm_train(config: Config = "cub-mobilenet", root: Root = None, output: Output = None, changes: Changes = None) -> State[Any]:
    """Fine-tune a classifier.

    Args:
        config: a preset such as cub, palm or cub-mobilenet, or the path or URL of a YAML file.
        root: the dataset's root; default: the Prefect variable named after the preset, such as train_cub_root.
        output: the folder or URL where classifiers are stored.
        changes: other keys of the configuration, such as {"recipe.batch": 16}.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    bypass_proxies_on_loopback(os.environ)  # a deployment's flow run has a process of its own
    given = {"dataset.root": root_of(config, root, _PREFIX), "output": output}
    try:
        training = load(config, given_changes(given, changes), TrainConfig, train_presets())
    except InputError as error:
        return Failed(message=hint(str(error), config, _PREFIX))
    state = train_classifier(training, return_state=True)
    if state.is_failed():
        return Failed(message=str(state.message))
    trained = cast("Trained", state.result())
    classifier_artifact(slugify(f"{trained.card.arch} classifier"), trained)
    metrics = trained.card.metrics.items()
    accuracies = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics if name.endswith("accuracy"))
    return Completed(message=f"{trained.url}: {accuracies or 'nothing was held back'}")
