"""A torchvision network with pretrained weights and a new head, and which of its parts learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hdm_core import Classifier, Preprocess
from hdm_core.device import LAYOUT
from hdm_core.sources.checkpoint import build
from hdm_core.sources.state_dict import read_state
from pipeline.errors import InputError, one_line
from pipeline.training.config import NetworkConfig, Recipe, Stage

FILES = {".safetensors", ".pth", ".pt"}


def make_network(config: NetworkConfig, classes: int, seed: int) -> tuple[nn.Module, Preprocess]:
    """The network on the CPU with a head drawn from the seed, and how it is shown photographs.

    Raises:
        InputError: if there is no such network, or its weights cannot be had or do not fit.
    """
    file = Path(config.weights) if config.weights is not None and Path(config.weights).suffix in FILES else None
    try:
        before = Classifier.from_torchvision(config.arch, None if file else config.weights, seed=seed)
        state = before.module.state_dict() if file is None else read_state(file)
    except ValueError as error:
        raise InputError(f"classifier: {one_line(error)}") from None
    except OSError as error:
        raise InputError(f"classifier: the weights {config.weights} of {config.arch} cannot be had ({one_line(error)})") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(config.arch, classes)
    _load_body(network, state, f"classifier.weights {config.weights}", config.arch)
    preprocess = before.preprocess or Preprocess()
    network.to(memory_format=LAYOUT)
    return network, replace(preprocess, resize=config.resize or preprocess.resize, crop=config.crop or preprocess.crop)


def head_of(network: nn.Module) -> str:
    """The name of a torchvision network's head: the last of its modules with parameters."""
    names = [name for name, _ in network.named_parameters()]
    return names[-1].rpartition(".")[0]


def check_stages(network: nn.Module, recipe: Recipe) -> None:
    """Whether the network has the parts that the stages name.

    Raises:
        InputError: if it has not.
    """
    names = [name for name, _ in network.named_parameters()]
    for number, stage in enumerate(recipe.stages):
        for part in stage.train if isinstance(stage.train, tuple) else ():
            if not any(_below(name, part) for name in names):
                known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
                raise InputError(f"recipe.stages.{number}.train: the network has no part {part!r}; its parts are {known}, and those below")


def unfreeze(network: nn.Module, stage: Stage) -> None:
    """Lets the stage's part learn, and nothing else; auxiliary heads never do."""
    head = head_of(network)
    parts = (head,) if stage.train == "head" else (head, *stage.train) if isinstance(stage.train, tuple) else None
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not _auxiliary(name) and (parts is None or any(_below(name, part) for part in parts)))


def train_mode(network: nn.Module, recipe: Recipe) -> None:
    """Training mode, in which a batch normalisation keeps its statistics if it is frozen or the recipe says so."""
    network.train()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            learns = any(parameter.requires_grad for parameter in module.parameters())
            module.train(learns and recipe.statistics == "batch")


def parameter_groups(network: nn.Module, stage: Stage, weight_decay: float) -> list[dict[str, object]]:
    """What learns, for an optimiser: body and head with their learning rates, and no decay for what has one dimension."""
    head = head_of(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            rate = stage.head_learning_rate or stage.learning_rate if _below(name, head) else stage.learning_rate
            groups.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()]


def logits_of(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A network's logits; networks with auxiliary heads return theirs beside, while they train."""
    return output if isinstance(output, Tensor) else output[0]


def _load_body(network: nn.Module, state: dict[str, Tensor], where: str, arch: str) -> None:
    """Loads all but the heads.

    Raises:
        InputError: if something is missing or has another shape.
    """
    head, mine = head_of(network), network.state_dict()
    body = [name for name in mine if not _below(name, head) and not _auxiliary(name)]
    for name in body:
        if name not in state or state[name].shape != mine[name].shape:
            found = f"has it as {tuple(state[name].shape)}" if name in state else "lacks it"
            raise InputError(f"{where}: not the weights of {arch}, whose {name} is {tuple(mine[name].shape)}: the file {found}")
    network.load_state_dict({name: state[name] for name in body}, strict=False)


def _below(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _auxiliary(name: str) -> bool:
    return name.lower().startswith("aux")
