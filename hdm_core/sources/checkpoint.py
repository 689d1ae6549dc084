"""Checkpoints: folders with `model.safetensors` and `card.json`.

A checkpoint holds no code and no pickle, so it may come from an untrusted source.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torchvision
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from hdm_core.preprocess import Preprocess
from hdm_core.sources.paths import local_path
from hdm_core.sources.state_dict import fit_state, read_state
from hdm_core.sources.state_keys import match_keys
from hdm_core.sources.torchvision import AUXILIARY_HEADS, has_auxiliary_heads, state_options

MODEL, CARD = "model.safetensors", "card.json"
_SET_ELSEWHERE = frozenset(
    {"weights", "num_classes", "pretrained", "progress", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
)


class Card(BaseModel):
    """Description of `model.safetensors`: builds the network and its preprocessing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str = Field(description="a torchvision classification network")
    classes: tuple[str, ...] = Field(min_length=1, description="one name per logit")
    preprocess: Preprocess = Preprocess()
    metrics: dict[str, float] = Field(default_factory=dict, description="quality of the classifier, such as accuracy")
    data: str | None = Field(None, description="digest of the training data")
    arguments: dict[str, Any] = Field(default_factory=dict, description="arguments of the network's builder, such as transform_input")


def save_checkpoint(module: nn.Module, card: Card, folder: str | Path) -> None:
    """Write a classifier's folder, the card last: a folder with a card is complete.

    Raises:
        ValueError: if the network's state holds anything but tensors.
    """
    folder = local_path(folder)
    state = module.state_dict()
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"the network's state holds more than tensors: {', '.join(others[:3])}; a checkpoint holds tensors only")
    folder.mkdir(parents=True, exist_ok=True)
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, folder / MODEL)
    # Without what earlier versions do not know, where it is not used, the card is one that they read, too.
    exclude: dict[str, Any] = {"preprocess": card.preprocess.unused} | ({} if card.arguments else {"arguments": True})
    (folder / CARD).write_text(card.model_dump_json(indent=2, exclude=exclude) + "\n", encoding="utf-8")


def load_checkpoint(folder: str | Path) -> tuple[nn.Module, Card]:
    """Load a folder that `save_checkpoint` wrote: network, on the CPU, and card.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if a file is damaged, or the weights do not fit the card's network and classes.
    """
    folder = local_path(folder)
    card = _read_card(folder)
    try:
        module = build(card.arch, len(card.classes), _card_options(card))
    except ValueError as error:
        raise ValueError(f"{folder / CARD}: {error}") from None
    fit_state(module, read_state(folder / MODEL), folder / MODEL, f"{card.arch} with {len(card.classes)} classes")
    return module, card


def _read_card(folder: Path) -> Card:
    try:
        return Card.model_validate(json.loads((folder / CARD).read_text(encoding="utf-8-sig")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CARD} is not JSON: {error}") from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        key = first["loc"][:2]  # what follows are names of the types that a size may have
        raise ValueError(f"{folder / CARD}: {'.'.join(map(str, key)) or 'the card'}: {first['msg']}") from None


def _card_options(card: Card) -> dict[str, Any]:
    unused = {"init_weights": False} if card.arch in AUXILIARY_HEADS else {}  # their random weights take seconds
    return {**unused, **card.arguments}


def file_options(path: Path, arch: str, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the builder options of the network whose weights a file holds.

    They are the card's if the file is that of a trained folder, else those that `state_options` finds.

    Raises:
        ValueError: if the card is damaged.
    """
    if path.name == MODEL and path.with_name(CARD).is_file():
        card = _read_card(path.parent)
        if card.arch == arch:
            return _card_options(card)
    return state_options(arch, state)


def load_state_dict(path: str | Path, arch: str, classes: int, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a torchvision network, on the CPU, with the weights of a state dict.

    Auxiliary heads that are missing or have another number of classes are left out: a network in evaluation mode does not use them.

    Args:
        arguments: of the network's builder; they replace those that the state dict's shapes show.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if there is no such network, its builder does not take the arguments, or the weights are not the network's.
    """
    path, given = local_path(path), dict(arguments or {})
    options = {**file_options(path, arch, {}), **given}
    module = build(arch, classes, options)
    state = match_keys(read_state(path), module.state_dict())
    fitting = {**file_options(path, arch, state), **given}
    if arch in AUXILIARY_HEADS and not has_auxiliary_heads(arch, state, classes):
        fitting["aux_logits"] = False
        state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
    if fitting != options:
        module = build(arch, classes, fitting)
    fit_state(module, state, path, f"{arch} with {classes} classes")
    return module


def check_arch(arch: str, networks: Sequence[str] | None = None, library: str = "torchvision") -> None:
    """Raise an error with the nearest names if a library has no such network.

    Raises:
        ValueError: if `arch` is not among the library's classification networks.
    """
    networks = torchvision.models.list_models(module=torchvision.models) if networks is None else networks
    if arch not in networks:
        close = difflib.get_close_matches(arch, networks, n=5, cutoff=0)
        raise ValueError(f"{library} has no classification network {arch!r}: choose from {', '.join(close)} or another of its names")


def build(arch: str, classes: int, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a torchvision classification network with a head of `classes` logits.

    Args:
        arguments: of the network's builder, such as {"transform_input": True}.

    Raises:
        ValueError: if torchvision has no such network, or its builder does not take the arguments.
    """
    check_arch(arch)
    check_arguments(arch, arguments or {})
    try:
        module: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=classes, **(arguments or {}))
    except Exception as error:  # the builders check little, so that a wrong value raises an error of any type
        if not arguments:
            raise
        raise ValueError(f"{arch} cannot be built with the arguments {dict(arguments)} ({' '.join(str(error).split())})") from None
    return module


def check_arguments(arch: str, arguments: Mapping[str, Any]) -> None:
    """Check that builder arguments do not name what other parameters set.

    Raises:
        ValueError: if they do.
    """
    if taken := sorted(set(arguments) & _SET_ELSEWHERE):
        raise ValueError(f"{arch}: the arguments cannot hold {', '.join(taken)}: weights, path and classes set the weights and the classes")
