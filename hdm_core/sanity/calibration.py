"""Statistics of batch normalisation for random weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hdm_core.classifier import Classifier
from hdm_core.device_errors import is_of_device

_IMAGES = 8  # that one forward pass takes the statistics of


@torch.no_grad()
def calibrate(classifier: Classifier, layers: Iterable[nn.Module], images: Tensor) -> None:
    """Set the statistics of batch normalisation to those of a few images, in place.

    A network that begins its training normalises by the statistics of its batch. With mean 0 and variance 1 in their place activations
    shrink in every layer: those of MobileNetV2 with random weights then differ from image to image by 5e-9 where the logits are 1e-2, and
    maps show how numbers were rounded. Where a layer has one value per channel and cannot take its statistics, they stay 0 and 1.

    Args:
        layers: those of the classifier that have new weights; others are not changed.
        images: (B, C, H, W), of which the first 8 are used.
    """
    norms = [layer for layer in layers if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    with classifier.frozen() as network:
        for norm in norms:
            norm.momentum = 1.0  # the statistics of this batch alone
            norm.train()
        try:
            network(images[:_IMAGES])
        except Exception as error:
            if is_of_device(error):
                raise
            for norm in norms:
                norm.reset_running_stats()
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
