"""Blocks of layers, from the logits down: the stages of weight randomisation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.sanity.subject import LeftOutError


@dataclass(frozen=True)
class Block:
    """Neighbouring layers whose weights are randomised together.

    Attributes:
        layers: names of submodules that hold weights themselves, the one nearest to the logits first.
    """

    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """First and last layer of the block."""
        first, last = (layer or "network" for layer in (self.layers[0], self.layers[-1]))
        return first if first == last else f"{first} to {last}"


def find_blocks(classifier: Classifier, image: Tensor, count: int) -> list[Block]:
    """Group the layers into blocks, the one nearest to the logits first.

    Layers are ordered by their first call in a forward pass. One that is not called, such as the projection that a MultiheadAttention uses
    as a tensor, has the place of the module around it. The layer of the logits is a block of its own; the others are dealt out evenly.

    Args:
        image: (1, C, H, W).
        count: largest number of blocks, at least 1.

    Raises:
        LeftOutError: if the network has no weights.
    """
    layers = _layers_in_order(classifier, image)[::-1]
    if not layers:
        raise LeftOutError("the network has no weights that can be changed")
    if count == 1 or len(layers) == 1:
        return [Block(tuple(layers))]
    first, rest = layers[:1], layers[1:]
    parts = min(count - 1, len(rest))
    bounds = [len(rest) * part // parts for part in range(parts + 1)]
    return [Block(tuple(first)), *(Block(tuple(rest[start:stop])) for start, stop in pairwise(bounds))]


def has_weights(module: nn.Module) -> bool:
    """Return whether a module itself, and no submodule alone, has floating weights."""
    return any(tensor.is_floating_point() for tensor in module.parameters(recurse=False))


def _layers_in_order(classifier: Classifier, image: Tensor) -> list[str]:
    """Return the names of the modules with weights, in the order of their first call."""
    network = classifier.network
    places: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, object], None]:
        def hook(_module: nn.Module, _inputs: object) -> None:
            places.setdefault(name, len(places))

        return hook

    with ExitStack() as hooks, classifier.frozen() as module, torch.no_grad():
        for name, each in network.named_modules():
            try:
                hooks.callback(each.register_forward_pre_hook(note(name)).remove)
            except RuntimeError:  # a part in TorchScript takes no hook: it has the place of the module around it
                continue
        module(image)

    def place(name: str) -> int:
        while name and name not in places:
            name = name.rpartition(".")[0]
        return places.get(name, -1)

    return sorted((name for name, each in network.named_modules() if has_weights(each)), key=place)
