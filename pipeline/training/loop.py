"""The epochs of a training, in one process or in several that train together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.transforms import v2

from hdm_core.device import LAYOUT, default_batch, default_precision, in_precision
from pipeline.errors import RunError
from pipeline.monitoring.progress import ProgressCallback
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import ImageCache, ImageDataset
from pipeline.training.metrics import scores
from pipeline.training.network import logits_of, parameter_groups, train_mode, unfreeze
from pipeline.training.progress import EpochTracker
from pipeline.training.split import TEST, TRAIN, VALIDATION, Example

Weights = dict[str, Tensor]


class OnEpochs(Protocol):
    """A function that is called with the epochs done, and with the history's row of an epoch that has just ended."""

    def __call__(self, done: float, entry: Mapping[str, float] | None = None, /) -> None:
        """Report the progress."""


@dataclass
class TrainingState:
    """A training between two epochs: all that the next one depends on, beside the configuration.

    Attributes:
        epoch: how many are done.
        network, average: weights; the average is empty where the recipe has none.
        optimiser: of the stage that is going on.
        kept, best: the epoch whose weights will be the result, counted from 1, and these weights.
        history: what each epoch came to.
        metrics: of the result on what was held back; empty until the end.
    """

    epoch: int = 0
    network: Weights = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    kept: int = 0
    best: Weights = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


class Training:
    """One network and the images it learns from; every process of a training has its own.

    Args:
        network: on the device, with the weights it begins with.
        pictures: all images, of which `items` can be read.
        device: where the network is.
    """

    def __init__(
        self, config: TrainConfig, network: nn.Module, pictures: ImageCache, items: Sequence[Example], device: torch.device
    ) -> None:
        self.config = config
        self.network = network
        self.device = device
        self._pictures = pictures
        self._items = {role: [item for item in items if item.role == role] for role in {item.role for item in items}}
        self._classes = 1 + max(item.target for item in items)
        self._precision = default_precision(device) if config.compute.precision == "auto" else config.compute.precision
        keep = config.recipe.average
        self._average = None if keep is None else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(keep), use_buffers=True)  # type: ignore[no-untyped-call]
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        readers = config.compute.readers
        self._readers = (8 if device.type == "cuda" else 0) if readers == "auto" else readers

    def fit(self, state: TrainingState, save: Callable[[TrainingState], None], on_progress: ProgressCallback) -> None:
        """Train from a state to the end of the recipe, then test the result.

        Args:
            state: updated in place after every epoch.
            save: called with the state after every epoch, and after the test.
            on_progress: called after every step.

        Raises:
            RunError: if the loss is not finite.
        """
        recipe = self.config.recipe
        tracker = EpochTracker(state.epoch, recipe.epochs)

        def on_epochs(done: float, entry: Mapping[str, float] | None = None) -> None:
            on_progress(tracker.progress(done, entry))

        if state.epoch:
            self.network.load_state_dict(state.network)
            if self._average is not None:
                self._average.load_state_dict(state.average)
        with torch.random.fork_rng(enabled=self._world == 1):
            while state.epoch < recipe.epochs:
                number, done = recipe.stage_of(state.epoch)
                self._stage(number, done, state, save, on_epochs)

        self.network.load_state_dict(state.best)
        for role in (VALIDATION, TEST):
            if role in self._items:
                state.metrics |= {f"{role}_{name}": value for name, value in self._scores(self.network, role).items()}
        save(state)

    def _stage(self, number: int, done: int, state: TrainingState, save: Callable[[TrainingState], None], on_epochs: OnEpochs) -> None:
        recipe, stage = self.config.recipe, self.config.recipe.stages[number]
        unfreeze(self.network, stage)
        loader = self._loader()
        optimiser = torch.optim.AdamW(parameter_groups(self.network, stage, recipe.weight_decay), fused=True)
        if done:
            optimiser.load_state_dict(state.optimiser)
        steps = stage.epochs * len(loader)
        schedule = LambdaLR(optimiser, lambda step: _up_and_down(step, steps, recipe.warmup), last_epoch=done * len(loader) - 1)
        learner: nn.Module = self.network
        if self._world > 1:
            learner = DistributedDataParallel(self.network, [self.device] if self.device.type == "cuda" else None)
        for _ in range(done, stage.epochs):
            begin = time.perf_counter()
            loss = self._epoch(state.epoch, learner, loader, optimiser, schedule, on_epochs)
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss of epoch {state.epoch + 1} is {loss}: lower recipe.stages.{number}.learning_rate, under another name"
                )
            state.epoch += 1
            entry = {"epoch": state.epoch, "stage": number, "loss": loss, "seconds": round(time.perf_counter() - begin, 3)}
            self._note(state, entry, optimiser)
            save(state)
            on_epochs(state.epoch, entry)

    def _epoch(
        self, epoch: int, learner: nn.Module, loader: Loader, optimiser: torch.optim.Optimizer, schedule: LambdaLR, on_epochs: OnEpochs
    ) -> float:
        """The mean loss of an epoch. All that is random in it follows from the seed, its number and the process's rank."""
        torch.manual_seed(((self.config.seed * 1_000_003 + epoch) * self._world + self._rank) % 2**63)
        assert isinstance(loader.sampler, DistributedSampler)  # noqa: S101 - for the type checker
        loader.sampler.set_epoch(epoch)
        train_mode(self.network, self.config.recipe)
        total = torch.zeros((), device=self.device)
        mixup = self.config.recipe.augmentation.mixup
        mix = v2.MixUp(alpha=mixup, num_classes=self._classes) if mixup else v2.Identity()
        for step, batch in enumerate(loader, 1):
            images, targets = mix(*batch)
            shown = images.to(self.device, memory_format=LAYOUT, non_blocking=True)
            with in_precision(self._precision, self.device):
                logits = logits_of(learner(shown))
            loss = F.cross_entropy(logits.float(), targets.to(self.device), label_smoothing=self.config.recipe.label_smoothing)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            if self._average is not None:
                self._average.update_parameters(self.network)
            total += loss.detach()
            if step < len(loader):  # the end of the epoch is reported with its metrics
                on_epochs(epoch + step / len(loader))
        if self._world > 1:
            dist.all_reduce(total)
        return float(total) / len(loader) / self._world

    def _note(self, state: TrainingState, entry: dict[str, float], optimiser: torch.optim.Optimizer) -> None:
        """Measures the epoch on the validation images and puts it into the state."""
        judged: nn.Module = self.network if self._average is None else self._average.module
        if self._world > 1:  # each process has batch statistics of its own; the first one's count
            for buffer in judged.buffers():
                dist.broadcast(buffer, 0)
        measured = VALIDATION in self._items
        if measured:
            entry |= {f"validation_{name}": value for name, value in self._scores(judged, VALIDATION).items()}
        if not measured or not state.kept or _merit(entry) > _merit(state.history[state.kept - 1]):
            state.kept, state.best = state.epoch, _copy(judged)
        state.network = _copy(self.network)
        state.average = {} if self._average is None else _copy(self._average)
        state.optimiser = optimiser.state_dict()
        state.history.append(entry)

    def _loader(self) -> Loader:
        items = self._items[TRAIN]
        batch = min(self.config.recipe.batch, len(items)) // self._world
        if batch < 2:
            raise RunError(f"{len(items)} training images in batches of {self.config.recipe.batch} are too few for {self._world} workers")
        seen = ImageDataset(self._pictures, items, self.config.recipe.augmentation)
        sampler: DistributedSampler[tuple[Tensor, int]] = DistributedSampler(
            seen, self._world, self._rank, seed=self.config.seed, drop_last=True
        )
        return DataLoader(seen, batch, sampler=sampler, num_workers=self._readers, drop_last=True, pin_memory=self.device.type == "cuda")

    @torch.no_grad()
    def _scores(self, network: nn.Module, role: str) -> dict[str, float]:
        """On the images of a role, of which every process sees its share."""
        network.eval()
        seen = ImageDataset(self._pictures, self._items[role][self._rank :: self._world])
        answers, classes = [], []
        for images, targets in DataLoader(seen, default_batch(self.device), num_workers=self._readers):
            with in_precision(self._precision, self.device):
                answers.append(network(images.to(self.device, memory_format=LAYOUT)).float().cpu())
            classes.append(targets)
        mine = (answers, classes)
        shares = [mine] * self._world
        if self._world > 1:
            dist.all_gather_object(shares, mine)
        return scores(
            torch.cat([part for answers, _ in shares for part in answers]), torch.cat([part for _, classes in shares for part in classes])
        )


Loader = DataLoader[Any]


def _up_and_down(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate: a straight line up, then half a cosine down to 0."""
    up = max(1, round(warmup * steps))
    if step < up:
        return (step + 1) / up
    return (1 + math.cos(math.pi * (step - up) / max(1, steps - up))) / 2


def _merit(entry: dict[str, float]) -> tuple[float, float]:
    return entry["validation_accuracy"], -entry["validation_loss"]


def _copy(module: nn.Module) -> Weights:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
