"""Training of a classifier, from its configuration to the saved folder."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch

from hdm_core import Classifier
from hdm_core.sources.checkpoint import Card
from pipeline.datasets import list_samples
from pipeline.monitoring.progress import ProgressCallback, no_progress
from pipeline.preflight import preflight, read_photographs
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import ImageCache
from pipeline.training.loop import TrainingState
from pipeline.training.network import check_stages, make_network
from pipeline.training.split import check_classes, split, split_table
from pipeline.training.store import TrainingStore
from pipeline.training.worker import TrainingJob, train_worker

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """Trained classifier, and the seconds that this call took."""

    url: str
    card: Card
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the facts that `hdm train` prints."""
        return {
            "classifier": self.url,
            "arch": self.card.arch,
            "classes": len(self.card.classes),
            "metrics": self.card.metrics,
            "data": self.card.data,
            "seconds": round(self.seconds, 3),
        }


def train_presets() -> dict[str, str]:
    """Read the packaged trainings: name -> YAML."""
    folder = resources.files("pipeline.training") / "presets"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    }


def train(config: TrainConfig, on_progress: ProgressCallback = no_progress) -> Trained:
    """Train a classifier, or resume it; of a finished one only read the card.

    Args:
        on_progress: called after every step.

    Raises:
        InputError: if the training cannot start; no epoch was begun.
        RunError: if it cannot continue.
    """
    begin = time.monotonic()
    samples = list_samples(config.dataset, config.storage)
    for line in samples.notes.lines():
        _log.warning("%s", line)
    splits = split(samples, config)
    start = make_network(config.classifier, len(splits.classes), config.seed)
    check_stages(start.network, config.recipe)
    classifier = Classifier(start.network, start.preprocess, name=config.classifier.arch)
    preflight(classifier, read_photographs(classifier, samples, config.storage), {})
    store = TrainingStore.at(config)
    store.create(config, start.arguments)
    card = store.card()
    if card is not None:
        _log.info("%s was trained before", store.url)
        return Trained(store.url, card, time.monotonic() - begin)

    images = ImageCache(splits.items, start.preprocess, config.storage, config.compute.cache * 2**30)
    items = tuple(images.read())
    check_classes(items, splits.classes)
    data = store.record_split(split_table(splits.items, splits.classes, images.read_results))
    counts: dict[str, float] = {f"{role}_images": number for role, number in Counter(item.role for item in items).items()}
    counts |= {"unreadable_images": len(splits.items) - len(items), "unlabelled_images": splits.unlabelled}
    _log.info("%s: %s", store.url, ", ".join(f"{number:.0f} {name.replace('_', ' ')}" for name, number in counts.items() if number))

    state = _fit(TrainingJob(config, items, len(splits.classes)), images, on_progress)
    start.network.load_state_dict(state.best)
    metrics = {**state.metrics, **counts, "epoch": state.kept}
    card = Card(
        arch=config.classifier.arch,
        classes=splits.classes,
        preprocess=start.preprocess,
        metrics=metrics,
        data=data,
        arguments=start.arguments,
    )
    store.finish(start.network, card)
    return Trained(store.url, card, time.monotonic() - begin)


def _fit(job: TrainingJob, images: ImageCache, on_progress: ProgressCallback) -> TrainingState:
    compute = job.config.compute
    devices = max(1, torch.cuda.device_count()) if compute.gpus_per_worker else 1
    workers = devices if compute.workers == "auto" else compute.workers
    if workers == 1 and compute.ray_address is None:
        return train_worker(job, images, compute.gpus_per_worker, 1, on_progress)
    from pipeline.training.distributed import train_distributed  # Ray Train takes seconds to import

    return train_distributed(job, workers, on_progress)
