"""What every process of a training does, whether it is alone or one of several."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from hdm_core.device import pick_device
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import ImageCache
from pipeline.training.loop import Training, TrainingState
from pipeline.training.network import make_network
from pipeline.training.progress import Show
from pipeline.training.split import Example
from pipeline.training.store import TrainingStore


@dataclass(frozen=True)
class TrainingJob:
    """A training that can begin: all its images can be read."""

    config: TrainConfig
    items: tuple[Example, ...]
    classes: int


def train_worker(job: TrainingJob, pictures: ImageCache | None, gpus: int, workers: int, show: Show, saves: bool = True) -> TrainingState:
    """Trains on from where the folder is, to the end.

    Args:
        pictures: the images, where they have been read in this process.
        workers: how many processes train together on this machine's cores.
        saves: whether this process is the one that writes.
    """
    config = job.config
    device = pick_device(gpus)
    if device.type == "cpu":
        threads = config.compute.threads
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers) if threads == "auto" else threads)
    network, preprocess = make_network(config.classifier, job.classes, config.seed)
    folder = TrainingStore.at(config)
    state = folder.load()
    pictures = pictures or ImageCache(job.items, preprocess, config.storage, config.compute.cache * 2**30)
    training = Training(config, network.to(device), pictures, job.items, device)
    training.fit(state, folder.save if saves else lambda _: None, show)
    return state
