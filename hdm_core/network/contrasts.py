"""Differences of two logits: the evidence for one class rather than another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from hdm_core.network.outputs import logits_in
from hdm_core.network.wrappers import NetworkWrapper


@fx.wrap
def differences(output: Any, first: Sequence[int], second: Sequence[int]) -> Any:
    """Return z_a - z_b for P pairs of classes, (B, P).

    Args:
        output: logits (B, classes), or an output in which `logits_in` finds them.
        first: a, P numbers.
        second: b, P numbers.
    """
    logits = logits_in(output)
    return logits[:, _class_index(tuple(first), logits.device)] - logits[:, _class_index(tuple(second), logits.device)]


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is made in inference mode has no place in a later graph
def _class_index(classes: tuple[int, ...], device: torch.device) -> Tensor:
    """Return class numbers as an index on a device.

    It is made once per classes: a list would be copied to the device in every pass, and each copy makes the host wait for it.
    """
    return torch.tensor(classes, device=device)


class Contrasts(NetworkWrapper):
    """A network whose logits are the differences z_a - z_b of pairs of classes.

    The sigmoid of a difference is p_a / (p_a + p_b) for the softmax probabilities p.

    Attributes:
        pairs: (a, b), one per logit.
    """

    def __init__(self, network: nn.Module, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__(network)
        self.pairs = tuple(pairs)

    def forward(self, images: Tensor) -> Any:
        """Return the differences (B, P)."""
        return self.differences(self.network(images))

    def differences(self, output: Any) -> Any:
        """Return the differences (B, P) of an output."""
        first, second = zip(*self.pairs, strict=True)
        return differences(output, first, second)
