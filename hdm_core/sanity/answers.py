"""Logits of many images, in batches."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.network.logits import class_logits


@torch.no_grad()
def answers(classifier: Classifier, images: Tensor, batch: int) -> Tensor:
    """Return the logits of images, (B, classes) float32.

    Args:
        images: (B, C, H, W).
        batch: images per forward pass.
    """
    with classifier.frozen() as network:
        return torch.cat([class_logits(network, part) for part in torch.split(images, batch)]).float()
