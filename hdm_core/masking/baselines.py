"""Baseline images: the values that replace masked pixels.

The paper's M * X acts on the normalised image, so a masked pixel takes the normalisation mean, which is grey (`mean`). The paper is
silent on alternatives; `black`, `blur` and `noise` are offered by configuration, and the metrics have a baseline of their own.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from hdm_core.classifier import Classifier
from hdm_core.draws import method_generator
from hdm_core.settings import Baseline

BASELINES: tuple[Baseline, ...] = get_args(Baseline)


def applicable_baselines(classifier: Classifier) -> tuple[Baseline, ...]:
    """Return the baselines that a classifier has: without a preprocess no black."""
    return tuple(kind for kind in BASELINES if kind != "black" or classifier.preprocess is not None)


def baseline_image(kind: Baseline, classifier: Classifier, images: Tensor) -> Tensor:
    """Return the image shown where a mask is 0, broadcastable to (B, C, H, W).

    `mean`: zero after normalisation, so that the masked image is M * X; `black`: zero before normalisation; `blur`: the image blurred
    with a Gaussian whose sigma is 1/20 of its short side; `noise`: independent normal values around the mean, whose standard deviation is
    that of the network's inputs, drawn from a fixed seed, the same for all images of a size.

    Raises:
        ValueError: for an unknown kind, and for `black` if the classifier has no preprocess, which defines black's values after
            normalisation.
    """
    if kind == "mean":
        return torch.zeros(1, images.shape[1], 1, 1, dtype=images.dtype, device=images.device)
    if kind == "black":
        if classifier.preprocess is None:
            raise ValueError("baseline 'black' needs the classifier's preprocess, which defines the values of a black pixel")
        return classifier.preprocess.black()[None].to(images)
    if kind == "noise":
        spread = 1.0 if classifier.preprocess is None else classifier.preprocess.spread
        # On the CPU, so that it does not depend on the device.
        noise = torch.randn(1, *images.shape[1:], generator=method_generator())
        return (spread * noise).to(images)
    if kind != "blur":
        raise ValueError(f"unknown baseline {kind!r}: choose from {', '.join(BASELINES)}")
    sigma = min(images.shape[-2:]) / 20
    blurred: Tensor = gaussian_blur(images, kernel_size=[2 * round(2 * sigma) + 1] * 2, sigma=[sigma, sigma])
    return blurred
