"""Differences of two logits: the evidence for one class rather than another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    return logits[:, list(first)] - logits[:, list(second)]


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
