"""A trained classifier as a folder: `model.safetensors` and `card.json`. No code and no pickle, so it may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torchvision
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hdm_core.preprocess import Preprocess

MODEL, CARD = "model.safetensors", "card.json"


class Card(BaseModel):
    """What `model.safetensors` is: enough to build the network and to prepare photographs for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str = Field(description="a torchvision classification network")
    classes: tuple[str, ...] = Field(min_length=1, description="a name for every logit")
    preprocess: Preprocess = Preprocess()
    metrics: dict[str, float] = Field(default_factory=dict, description="how good it is, such as accuracy")
    data: str | None = Field(None, description="fingerprint of what it was trained on")


def save_checkpoint(module: nn.Module, card: Card, folder: str | Path) -> None:
    """Writes a classifier's folder; the card last, so that a folder with a card is whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, folder / MODEL)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")


def load_checkpoint(folder: str | Path) -> tuple[nn.Module, Card]:
    """The network of a folder that `save_checkpoint` wrote, on the CPU, and its card.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if a file is damaged, or the weights are not those of the card's network and classes.
    """
    folder = Path(folder)
    try:
        card = Card.model_validate(json.loads((folder / CARD).read_text()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CARD} is not JSON: {error}") from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        raise ValueError(f"{folder / CARD}: {'.'.join(map(str, first['loc'])) or 'the card'}: {first['msg']}") from None
    if card.arch not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"{folder / CARD}: torchvision has no classification network {card.arch!r}")
    module: nn.Module = torchvision.models.get_model(card.arch, weights=None, num_classes=len(card.classes))
    try:
        module.load_state_dict(load_file(folder / MODEL))
    except SafetensorError as error:
        raise ValueError(f"{folder / MODEL} is damaged: {error}") from None
    except RuntimeError:
        raise ValueError(f"{folder / MODEL} does not hold the weights of {card.arch} with {len(card.classes)} classes") from None
    return module, card
