"""What methods that attribute to pixels share: the gradient of the targets' logits to the images, and one map from all channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdm_core.masking.ops import normalise
from hdm_core.network.logits import class_logits


@torch.enable_grad()
def input_gradient(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """How the logits of targets p (B,) change with each value of their images (B, C, H, W): the same shape, logits per unit."""
    images = images.detach().requires_grad_()
    score = class_logits(network, images).gather(1, targets[:, None]).sum()  # a sum: images stay independent of each other
    (gradient,) = torch.autograd.grad(score, images)
    return gradient


def pixel_shares(attributions: Tensor) -> Tensor:
    """One map of attributions that add up: (B, C, H, W) -> (B, H, W) in [0, 1].

    The channels are summed first, so that a pixel has its share of f(x) - f(baseline), and the size of the share is the map: a pixel
    that speaks against the class is salient, too.
    """
    return normalise(attributions.sum(1).abs())
