"""A dataset of two colours, and trainings on it that take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config.load import load
from pipeline.training.config import TrainConfig
from pipeline.training.run import Trained, train, train_presets
from tests.support.colour_images import write_colour_dataset

__all__ = ["load_training", "run_training", "training_config", "write_colour_dataset"]


def training_config(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the configuration of a training as a mapping, with some top-level keys replaced."""
    return {
        "name": "colours",
        "dataset": {"kind": "folder", "root": str(folder)},
        "test": 0.25,
        "validation": 0.25,
        "classifier": {"arch": "mobilenet_v2", "weights": "IMAGENET1K_V1", "resize": 36, "crop": 32},
        "recipe": {
            "stages": [{"epochs": 1, "train": "head", "learning_rate": 1e-3}, {"epochs": 3, "learning_rate": 1e-3}],
            "batch": 4,
            "average": 0.9,
            "augmentation": {"mixup": 0.2},
        },
        "compute": {"threads": 1},
        "output": str(folder.parent / "classifiers"),
        **changes,
    }


def load_training(folder: Path, changes: dict[str, Any] | None = None, **keys: Any) -> TrainConfig:
    """Return the same configuration, validated; `changes` have dotted keys."""
    return load(training_config(folder, **keys), changes, TrainConfig, train_presets())


def run_training(folder: Path, changes: dict[str, Any] | None = None, **keys: Any) -> Trained:
    """Train with the same configuration in this process."""
    return train(load_training(folder, changes, **keys))
