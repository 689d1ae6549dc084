"""Pretrained torchvision networks with a new head, and the parts that are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hdm_core import Classifier, Preprocess
from hdm_core.device import LAYOUT
from hdm_core.sources.checkpoint import build, file_options
from hdm_core.sources.paths import local_path
from hdm_core.sources.state_dict import read_state
from hdm_core.sources.state_keys import match_keys
from hdm_core.sources.torchvision import builder_options, find_weights
from pipeline.errors import InputError, one_line
from pipeline.training.config import NetworkConfig, Recipe, TrainingStage

_WEIGHT_SUFFIXES = {".safetensors", ".pth", ".pt"}


@dataclass(frozen=True)
class StartNetwork:
    """Network before its training.

    Attributes:
        network: on the CPU, its head drawn from the seed.
        preprocess: of the weights, with the configured sizes.
        arguments: of the network's builder, without which the trained weights would give other answers.
    """

    network: nn.Module
    preprocess: Preprocess
    arguments: dict[str, Any]


def make_network(config: NetworkConfig, classes: int, seed: int) -> StartNetwork:
    """Build the network and its preprocessing.

    Raises:
        InputError: if there is no such network, its weights cannot be loaded or do not fit, or it does not take images of the size.
    """
    named = config.weights
    file = local_path(named) if named is not None and Path(named).suffix in _WEIGHT_SUFFIXES else None
    arguments: dict[str, Any] = {}
    preprocess = Preprocess()
    try:
        if file is not None:
            with torch.random.fork_rng(devices=[]):
                names = build(config.arch, classes, file_options(file, config.arch, {})).state_dict()
            state = match_keys(read_state(file), names)
            arguments = file_options(file, config.arch, state)
        else:
            pretrained = Classifier.from_torchvision(config.arch, named, seed=seed)
            state, preprocess = pretrained.module.state_dict(), pretrained.preprocess or preprocess
            if named is not None:
                arguments = builder_options(config.arch, find_weights(config.arch, named))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(config.arch, classes, arguments)
    except ValueError as error:
        raise InputError(f"classifier: {one_line(error)}") from None
    except OSError as error:
        raise InputError(f"classifier: the weights {named} of {config.arch} cannot be loaded ({one_line(error)})") from None
    _load_backbone(network, state, f"classifier.weights {named}", config.arch)
    side = arguments.get("image_size")  # a transformer takes images of one size
    if side is not None and (side, side) != preprocess.size:
        preprocess = Preprocess.of_side(side)
    crop = config.crop or (None if isinstance(config.resize, tuple) else preprocess.crop)
    preprocess = replace(preprocess, resize=config.resize or preprocess.resize, crop=crop)
    only = getattr(network, "image_size", None)
    if only is not None and preprocess.size != (only, only):
        size = config.crop or config.resize
        raise InputError(f"classifier.crop {size}: {config.arch} takes images of {only} x {only} only; leave crop out")
    network.to(memory_format=LAYOUT)
    return StartNetwork(network, preprocess, arguments)


def head_name(network: nn.Module) -> str:
    """Return the name of a torchvision network's head.

    The head is the last module with parameters.
    """
    names = [name for name, _ in network.named_parameters()]
    return names[-1].rpartition(".")[0]


def check_stages(network: nn.Module, recipe: Recipe) -> None:
    """Check that the network has the parts that the stages name.

    Raises:
        InputError: if a part is missing.
    """
    names = [name for name, _ in network.named_parameters()]
    for number, stage in enumerate(recipe.stages):
        for part in stage.train if isinstance(stage.train, tuple) else ():
            if not any(_is_within(name, part) for name in names):
                known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
                raise InputError(
                    f"recipe.stages.{number}.train: the network has no part {part!r}; its parts are {known}, and their submodules"
                )


def unfreeze(network: nn.Module, stage: TrainingStage) -> None:
    """Make the stage's part trainable and freeze all else, auxiliary heads always."""
    head = head_name(network)
    parts = (head,) if stage.train == "head" else (head, *stage.train) if isinstance(stage.train, tuple) else None
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not _is_auxiliary(name) and (parts is None or any(_is_within(name, part) for part in parts)))


def train_mode(network: nn.Module, recipe: Recipe) -> None:
    """Switch the network to training mode.

    A batch normalisation keeps its statistics if it is frozen or if the recipe uses the pretrained ones.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            trainable = any(parameter.requires_grad for parameter in module.parameters())
            module.train(trainable and recipe.statistics == "batch")


def parameter_groups(network: nn.Module, stage: TrainingStage, weight_decay: float) -> list[dict[str, object]]:
    """Group the trainable parameters by learning rate and weight decay.

    Parameters with one dimension (biases, normalisation) have no decay.
    """
    head = head_name(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = stage.head_learning_rate or stage.learning_rate if _is_within(name, head) else stage.learning_rate
            groups.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]


def main_logits(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the main head's logits.

    Networks with auxiliary heads return a tuple in training mode.
    """
    return output if isinstance(output, Tensor) else output[0]


def _load_backbone(network: nn.Module, state: dict[str, Tensor], source: str, arch: str) -> None:
    """Load all weights except those of the heads.

    Raises:
        InputError: if a parameter is missing or has another shape.
    """
    head, own = head_name(network), network.state_dict()
    backbone = [name for name in own if not _is_within(name, head) and not _is_auxiliary(name)]
    for name in backbone:
        if name not in state or state[name].shape != own[name].shape:
            found = f"has it as {tuple(state[name].shape)}" if name in state else "lacks it"
            raise InputError(f"{source}: not the weights of {arch}, whose {name} is {tuple(own[name].shape)}: the file {found}")
    network.load_state_dict({name: state[name] for name in backbone}, strict=False)


def _is_within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _is_auxiliary(name: str) -> bool:
    return name.lower().startswith("aux")
