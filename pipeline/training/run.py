"""A training from configuration to classifier: what the command line and the flow both drive."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch

from hdm_core.sources.checkpoint import Card
from pipeline.datasets import list_samples
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import ImageCache
from pipeline.training.loop import TrainingState
from pipeline.training.network import check_stages, make_network
from pipeline.training.progress import Show
from pipeline.training.split import check_classes, split, split_table
from pipeline.training.store import TrainingStore
from pipeline.training.worker import TrainingJob, train_worker

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A classifier that is trained, and the seconds that this call took."""

    url: str
    card: Card
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """What the command prints."""
        return {
            "classifier": self.url,
            "arch": self.card.arch,
            "classes": len(self.card.classes),
            "metrics": self.card.metrics,
            "data": self.card.data,
            "seconds": round(self.seconds, 3),
        }


def train_presets() -> dict[str, str]:
    """The packaged trainings: name -> YAML."""
    folder = resources.files("pipeline.training") / "presets"
    return {entry.name.removesuffix(".yaml"): entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def train(config: TrainConfig, show: Show) -> Trained:
    """Trains a classifier. A training that was interrupted goes on; of one that is done the card is read.

    Args:
        show: told how far it is, after every step.

    Raises:
        InputError: if anything about it cannot work; no epoch was begun.
        RunError: if it cannot go on.
    """
    begin = time.monotonic()
    division = split(list_samples(config.dataset, config.storage), config)
    network, preprocess = make_network(config.classifier, len(division.classes), config.seed)
    check_stages(network, config.recipe)
    folder = TrainingStore.at(config)
    folder.create(config)
    card = folder.card()
    if card is not None:
        _log.info("%s was trained before", folder.url)
        return Trained(folder.url, card, time.monotonic() - begin)

    pictures = ImageCache(division.items, preprocess, config.storage, config.compute.cache * 2**30)
    items = tuple(pictures.read())
    check_classes(items, division.classes)
    data = folder.record_split(split_table(division.items, division.classes, pictures.read_results))
    counts: dict[str, float] = {f"{role}_images": number for role, number in Counter(item.role for item in items).items()}
    counts |= {"unreadable_images": len(division.items) - len(items), "unlabelled_images": division.unlabelled}
    _log.info("%s: %s", folder.url, ", ".join(f"{number:.0f} {name.replace('_', ' ')}" for name, number in counts.items() if number))

    state = _fit(TrainingJob(config, items, len(division.classes)), pictures, show)
    network.load_state_dict(state.best)
    metrics = {**state.metrics, **counts, "epoch": state.kept}
    card = Card(arch=config.classifier.arch, classes=division.classes, preprocess=preprocess, metrics=metrics, data=data)
    folder.finish(network, card)
    return Trained(folder.url, card, time.monotonic() - begin)


def _fit(job: TrainingJob, pictures: ImageCache, show: Show) -> TrainingState:
    compute = job.config.compute
    every = max(1, torch.cuda.device_count()) if compute.gpus_per_worker else 1
    workers = every if compute.workers == "auto" else compute.workers
    if workers == 1 and compute.ray_address is None:
        return train_worker(job, pictures, compute.gpus_per_worker, 1, show)
    from pipeline.training.distributed import train_distributed  # Ray Train takes seconds to import

    return train_distributed(job, workers, show)
