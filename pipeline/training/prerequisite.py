"""Training that a run's classifier needs before the run."""

from __future__ import annotations

from hdm_core.sources.checkpoint import CARD
from hdm_core.sources.paths import local_path
from pipeline.config.load import load
from pipeline.config.schema import RunConfig
from pipeline.training.config import TrainConfig
from pipeline.training.run import train_presets


def training_before(config: RunConfig) -> TrainConfig | None:
    """Return the training of a run's missing classifier, on the run's own dataset.

    None if the classifier exists, or the run names no training.

    Raises:
        InputError: if there is no such training, or it is not valid.
    """
    section = config.classifier
    if section.train is None or section.path is None:
        return None
    folder = local_path(section.path)
    if (folder / CARD).is_file():
        return None
    changes = {"name": folder.name, "output": str(folder.parent), "dataset.root": config.dataset.root, "storage": config.storage}
    return load(section.train, changes, TrainConfig, train_presets())
