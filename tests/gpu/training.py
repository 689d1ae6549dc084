"""A short training in this process, without the rest of the pipeline."""

from __future__ import annotations

from pathlib import Path

import torch

from hdm_core import Preprocess
from hdm_core.device import Precision
from pipeline.datasets.sample import Sample
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import ImageCache
from pipeline.training.loop import Training, TrainingState
from pipeline.training.split import TEST, TRAIN, VALIDATION, Example
from tests.support.tiny_networks import normalised


def trained(device: str, folder: Path, batch: int = 4, precision: Precision = "float32") -> TrainingState:
    """Train a small network on images of two colours, four of each, as `write_colour_dataset` writes them."""
    config = TrainConfig.model_validate(
        {
            "name": "colours",
            "dataset": {"kind": "folder", "root": str(folder)},
            "classifier": {"arch": "mobilenet_v2", "weights": "IMAGENET1K_V1", "resize": 36, "crop": 32},
            "recipe": {
                "stages": [{"epochs": 1, "train": "head", "learning_rate": 1e-3}, {"epochs": 3, "learning_rate": 1e-3}],
                "batch": batch,
                "average": 0.9,
                "augmentation": {"mixup": 0.2},
            },
            "compute": {"threads": 1, "precision": precision, "readers": 0},
            "output": str(folder.parent / "classifiers"),
        }
    )
    roles = (TRAIN, TRAIN, VALIDATION, TEST)
    items = [
        Example(Sample(f"{name}/{i}", str(folder / name / f"{i}.png"), root=str(folder)), role, target)
        for target, name in enumerate(("red", "blue"))
        for i, role in enumerate(roles)
    ]
    state, network = TrainingState(), normalised(2).to(device)
    images = ImageCache(items, Preprocess(resize=36, crop=32), {}, 1e9)
    Training(config, network, images, items, torch.device(device)).fit(state, lambda _state: None, lambda _progress: None)
    return state
