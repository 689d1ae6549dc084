"""Tiny seeded networks and images, and snapshots of a network's state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdm_core.network.hooks import forward_to
from hdm_core.testing.networks import FailingNetwork as Failing
from hdm_core.testing.networks import InterruptionError, Untraceable, assert_unchanged, snapshot
from hdm_core.testing.networks import mixed_state_network as mixed_state
from hdm_core.testing.networks import normalised_network as normalised
from hdm_core.testing.networks import sample_images as pictures
from hdm_core.testing.networks import smooth_network as smooth

__all__ = [
    "Constant",
    "Failing",
    "InterruptionError",
    "Linear",
    "Pair",
    "Untraceable",
    "activations_and_gradients",
    "assert_unchanged",
    "mixed_state",
    "normalised",
    "pictures",
    "smooth",
    "snapshot",
]


class Linear(nn.Module):
    """Network with logits 0 for class 0 and w . x + bias for class 1."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        score = (images * self.weight).sum((1, 2, 3)) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


class Constant(nn.Module):
    """Network that reads the image and returns the same logits for all."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.logits = nn.Parameter(torch.linspace(1, 2, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.logits + 0 * self.conv(images).mean((1, 2, 3))[:, None]


class Pair(nn.Module):
    """Network with two heads, either of which may be the logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(images)
        return logits, 2 * logits


def activations_and_gradients(network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's output and the gradient of the targets' logits to it, each (B, K, h, w)."""
    answer = forward_to(network, layer, images)
    return answer.activations.detach(), answer.gradients(targets)
