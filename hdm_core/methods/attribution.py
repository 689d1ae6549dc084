"""Shared by pixel attribution methods: input gradients and channel reduction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdm_core.masking.ops import normalise
from hdm_core.network.gradients import gradient_of
from hdm_core.network.logits import class_logits


@torch.enable_grad()
def input_gradient(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of the targets' logits to the images, (B, C, H, W).

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: p, (B,) int64.

    Returns:
        Logits per unit of the images.
    """
    images = images.detach().requires_grad_()
    score = class_logits(network, images).gather(1, targets[:, None]).sum()  # a sum keeps the images independent of each other
    return gradient_of(score, images)


def pixel_shares(attributions: Tensor) -> Tensor:
    """Reduce additive attributions (B, C, H, W) to maps (B, H, W) in [0, 1].

    The channels are summed first, which gives a pixel its share of f(x) - f(baseline). The map is the absolute share: a pixel that is
    evidence against the class is salient, too.
    """
    return normalise(attributions.sum(1).abs())
