"""What every process of a training does, whether it is alone or one of several."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from hdm_core.device import pick_device
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import Pictures
from pipeline.training.loop import State, Training
from pipeline.training.network import make_network
from pipeline.training.progress import Show
from pipeline.training.split import Item
from pipeline.training.store import Folder


@dataclass(frozen=True)
class Job:
    """A training that can begin: all its images can be read."""

    config: TrainConfig
    items: tuple[Item, ...]
    classes: int


def work(job: Job, pictures: Pictures | None, gpus: int, workers: int, show: Show, saves: bool = True) -> State:
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
    folder = Folder.at(config)
    state = folder.load()
    pictures = pictures or Pictures(job.items, preprocess, config.storage, config.compute.cache * 2**30)
    training = Training(config, network.to(device), pictures, job.items, device)
    training.fit(state, folder.save if saves else lambda _: None, show)
    return state
