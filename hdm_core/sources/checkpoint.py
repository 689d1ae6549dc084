"""Checkpoints: folders with `model.safetensors` and `card.json`.

A checkpoint holds no code and no pickle, so it may come from an untrusted source.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchvision
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import nn

from hdm_core.preprocess import Preprocess
from hdm_core.sources.state_dict import fit_state, read_state

MODEL, CARD = "model.safetensors", "card.json"


class Card(BaseModel):
    """Description of `model.safetensors`: builds the network and its preprocessing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str = Field(description="a torchvision classification network")
    classes: tuple[str, ...] = Field(min_length=1, description="one name per logit")
    preprocess: Preprocess = Preprocess()
    metrics: dict[str, float] = Field(default_factory=dict, description="quality of the classifier, such as accuracy")
    data: str | None = Field(None, description="digest of the training data")


def save_checkpoint(module: nn.Module, card: Card, folder: str | Path) -> None:
    """Write a classifier's folder, the card last: a folder with a card is complete."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, folder / MODEL)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: str | Path) -> tuple[nn.Module, Card]:
    """Load a folder that `save_checkpoint` wrote: network, on the CPU, and card.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if a file is damaged, or the weights do not fit the card's network and classes.
    """
    folder = Path(folder)
    try:
        card = Card.model_validate(json.loads((folder / CARD).read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CARD} is not JSON: {error}") from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        raise ValueError(f"{folder / CARD}: {'.'.join(map(str, first['loc'])) or 'the card'}: {first['msg']}") from None
    try:
        module = build(card.arch, len(card.classes))
    except ValueError as error:
        raise ValueError(f"{folder / CARD}: {error}") from None
    fit_state(module, read_state(folder / MODEL), folder / MODEL, f"{card.arch} with {len(card.classes)} classes")
    return module, card


def check_arch(arch: str, networks: Sequence[str] | None = None, library: str = "torchvision") -> None:
    """Raise an error with the nearest names if a library has no such network.

    Raises:
        ValueError: if `arch` is not among the library's classification networks.
    """
    networks = torchvision.models.list_models(module=torchvision.models) if networks is None else networks
    if arch not in networks:
        close = difflib.get_close_matches(arch, networks, n=5, cutoff=0)
        raise ValueError(f"{library} has no classification network {arch!r}: choose from {', '.join(close)} or another of its names")


def build(arch: str, classes: int) -> nn.Module:
    """Build a torchvision classification network with a head of `classes` logits.

    Raises:
        ValueError: if torchvision has no such network.
    """
    check_arch(arch)
    module: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=classes)
    return module
