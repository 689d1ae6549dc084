"""Training loop, in one process or in several with DistributedDataParallel."""

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

from hdm_core.device import LAYOUT, default_batch, default_precision, float32_arithmetic, in_precision
from pipeline.errors import RunError
from pipeline.monitoring.progress import ProgressCallback
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import ImageCache, ImageDataset, reader_processes
from pipeline.training.metrics import classification_metrics
from pipeline.training.network import main_logits, parameter_groups, train_mode, unfreeze
from pipeline.training.progress import EpochTracker
from pipeline.training.split import TEST, TRAIN, VALIDATION, Example

StateDict = dict[str, Tensor]


class OnEpochs(Protocol):
    """Callback for the progress of the epochs.

    It is called with the epochs done, and with the history's row of an epoch that has just ended.
    """

    def __call__(self, done: float, entry: Mapping[str, float] | None = None, /) -> None:
        """Report the progress."""


@dataclass
class TrainingState:
    """State of a training between two epochs.

    With the configuration it determines the next epoch. The names of the fields are those of state.pt.

    Attributes:
        epoch: number of finished epochs.
        network, average: state dicts; `average` is empty if the recipe has no moving average.
        optimiser: state of the optimiser of the current stage.
        kept, best: number of the best epoch, counted from 1, and its weights, which are the result.
        history: one entry per finished epoch.
        metrics: metrics of the result on the validation and test images; empty until the end.
    """

    epoch: int = 0
    network: StateDict = field(default_factory=dict)
    average: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    kept: int = 0
    best: StateDict = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


class Training:
    """Training of one network; each process of a distributed training has its own.

    Args:
        network: network on the device, with its initial weights.
        images: cache of all images.
        items: images that can be read.
        device: device of the network.
    """

    def __init__(self, config: TrainConfig, network: nn.Module, images: ImageCache, items: Sequence[Example], device: torch.device) -> None:
        self.config = config
        self.network = network
        self.device = device
        self._images = images
        self._items = {role: [item for item in items if item.role == role] for role in {item.role for item in items}}
        self._classes = 1 + max(item.target for item in items)
        self._precision = default_precision(device) if config.compute.precision == "auto" else config.compute.precision
        decay = config.recipe.average
        self._average = None if decay is None else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
        self._rank, self._world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        readers = config.compute.readers
        self._readers = (8 if device.type == "cuda" else 0) if readers == "auto" else readers
        if self._readers:
            images.share()

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
        exact = float32_arithmetic(self.device, tf32=self._precision == "tf32")
        with torch.random.fork_rng(enabled=self._world == 1), exact:
            while state.epoch < recipe.epochs:
                number, done = recipe.locate_epoch(state.epoch)
                self._stage(number, done, state, save, on_epochs)

        self.network.load_state_dict(state.best)
        for role in (VALIDATION, TEST):
            if role in self._items:
                state.metrics |= {f"{role}_{name}": value for name, value in self._evaluate(self.network, role).items()}
        save(state)

    def _stage(self, number: int, done: int, state: TrainingState, save: Callable[[TrainingState], None], on_epochs: OnEpochs) -> None:
        recipe, stage = self.config.recipe, self.config.recipe.stages[number]
        unfreeze(self.network, stage)
        loader = self._loader()
        optimiser = torch.optim.AdamW(parameter_groups(self.network, stage, recipe.weight_decay), fused=True)
        if done:
            optimiser.load_state_dict(state.optimiser)
        steps = stage.epochs * len(loader)
        schedule = LambdaLR(optimiser, lambda step: _warmup_cosine(step, steps, recipe.warmup), last_epoch=done * len(loader) - 1)
        learner: nn.Module = self.network
        if self._world > 1:
            learner = DistributedDataParallel(self.network, [self.device] if self.device.type == "cuda" else None)
        for _ in range(done, stage.epochs):
            begin = time.perf_counter()
            loss = self._epoch(state.epoch, learner, loader, optimiser, schedule, on_epochs)
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss of epoch {state.epoch + 1} is {loss}: lower recipe.stages.{number}.learning_rate, and choose another name"
                )
            state.epoch += 1
            entry = {"epoch": state.epoch, "stage": number, "loss": loss, "seconds": round(time.perf_counter() - begin, 3)}
            self._record_epoch(state, entry, optimiser)
            save(state)
            on_epochs(state.epoch, entry)

    def _epoch(
        self, epoch: int, learner: nn.Module, loader: Loader, optimiser: torch.optim.Optimizer, schedule: LambdaLR, on_epochs: OnEpochs
    ) -> float:
        """Train one epoch and return its mean loss.

        All random numbers follow from the seed, the epoch and the process's rank.
        """
        torch.manual_seed(((self.config.seed * 1_000_003 + epoch) * self._world + self._rank) % 2**63)
        assert isinstance(loader.sampler, DistributedSampler)  # noqa: S101 - for the type checker
        loader.sampler.set_epoch(epoch)
        train_mode(self.network, self.config.recipe)
        total = torch.zeros((), device=self.device)
        mixup = self.config.recipe.augmentation.mixup
        mix = v2.MixUp(alpha=mixup, num_classes=self._classes) if mixup else v2.Identity()
        for step, batch in enumerate(loader, 1):
            images, targets = mix(*batch)
            inputs = images.to(self.device, memory_format=LAYOUT, non_blocking=True)
            with in_precision(self._precision, self.device):
                logits = main_logits(learner(inputs))
            loss = F.cross_entropy(
                logits.float(), targets.to(self.device, non_blocking=True), label_smoothing=self.config.recipe.label_smoothing
            )
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

    def _record_epoch(self, state: TrainingState, entry: dict[str, float], optimiser: torch.optim.Optimizer) -> None:
        """Evaluate the epoch on the validation images and update the state."""
        evaluated: nn.Module = self.network if self._average is None else self._average.module
        if self._world > 1:  # batch statistics differ between the processes; those of rank 0 are used
            for buffer in evaluated.buffers():
                dist.broadcast(buffer, 0)
        validates = VALIDATION in self._items
        if validates:
            entry |= {f"validation_{name}": value for name, value in self._evaluate(evaluated, VALIDATION).items()}
        if not validates or not state.kept or _selection_key(entry) > _selection_key(state.history[state.kept - 1]):
            state.kept, state.best = state.epoch, _copy(evaluated)
        state.network = _copy(self.network)
        state.average = {} if self._average is None else _copy(self._average)
        state.optimiser = optimiser.state_dict()
        state.history.append(entry)

    def _loader(self) -> Loader:
        items = self._items[TRAIN]
        batch = min(self.config.recipe.batch, len(items)) // self._world
        if batch < 2:
            raise RunError(f"{len(items)} training images in batches of {self.config.recipe.batch} are too few for {self._world} workers")
        dataset = ImageDataset(self._images, items, self.config.recipe.augmentation)
        sampler: DistributedSampler[tuple[Tensor, int]] = DistributedSampler(
            dataset, self._world, self._rank, seed=self.config.seed, drop_last=True
        )
        pinned = self.device.type == "cuda"
        return DataLoader(dataset, batch, sampler=sampler, drop_last=True, pin_memory=pinned, **reader_processes(self._readers))

    @torch.no_grad()
    def _evaluate(self, network: nn.Module, role: str) -> dict[str, float]:
        """Compute the metrics on the images of a role, divided among the processes."""
        network.eval()
        dataset = ImageDataset(self._images, self._items[role][self._rank :: self._world])
        logits, classes = [], []
        for images, targets in DataLoader(dataset, default_batch(self.device), **reader_processes(self._readers)):
            with in_precision(self._precision, self.device):
                logits.append(network(images.to(self.device, memory_format=LAYOUT)).float().cpu())
            classes.append(targets)
        own = (logits, classes)
        gathered = [own] * self._world
        if self._world > 1:
            dist.all_gather_object(gathered, own)
        return classification_metrics(
            torch.cat([batch for logits, _ in gathered for batch in logits]),
            torch.cat([batch for _, classes in gathered for batch in classes]),
        )


Loader = DataLoader[Any]


def _warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate factor: linear warmup, then half a cosine to 0."""
    warmup_steps = max(1, round(warmup * steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps))) / 2


def _selection_key(entry: dict[str, float]) -> tuple[float, float]:
    """Return validation accuracy and negative validation loss; greater is better."""
    return entry["validation_accuracy"], -entry["validation_loss"]


def _copy(module: nn.Module) -> StateDict:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
