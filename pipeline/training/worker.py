"""Entry point of a training process, single or distributed."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from hdm_core.device import pick_device
from pipeline.monitoring.progress import ProgressCallback
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import ImageCache
from pipeline.training.loop import Training, TrainingState
from pipeline.training.network import make_network
from pipeline.training.split import Example
from pipeline.training.store import TrainingStore


@dataclass(frozen=True)
class TrainingJob:
    """Training whose images are known to be readable."""

    config: TrainConfig
    items: tuple[Example, ...]
    classes: int


def train_worker(
    job: TrainingJob, images: ImageCache | None, gpus: int, workers: int, on_progress: ProgressCallback, saves: bool = True
) -> TrainingState:
    """Train from the folder's last saved state to the end.

    Args:
        images: the decoded images, if this process has read them.
        workers: processes that train together on this machine's cores.
        on_progress: called after every step.
        saves: True in the one process that writes.
    """
    config = job.config
    device = pick_device(gpus)
    if device.type == "cpu":
        threads = config.compute.threads
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers) if threads == "auto" else threads)
    start = make_network(config.classifier, job.classes, config.seed)
    store = TrainingStore.at(config)
    state = store.load()
    images = images or ImageCache(job.items, start.preprocess, config.storage, config.compute.cache * 2**30)
    training = Training(config, start.network.to(device), images, job.items, device)
    training.fit(state, store.save if saves else lambda _: None, on_progress)
    return state
