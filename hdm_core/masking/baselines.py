"""Baseline images: the values that replace masked pixels.

The paper's M * X acts on the normalised image, so a masked pixel takes the normalisation mean, which is grey (`mean`). The paper is
silent on alternatives; `black` and `blur` are offered by configuration, and the metrics have a baseline of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from hdm_core.classifier import Classifier
from hdm_core.settings import Baseline


def baseline_image(kind: Baseline, classifier: Classifier, images: Tensor) -> Tensor:
    """Return the image shown where a mask is 0, broadcastable to (B, C, H, W).

    `mean`: zero after normalisation, so that the masked image is M * X; `black`: zero before normalisation; `blur`: the image blurred
    with a Gaussian whose sigma is 1/20 of its short side.

    Raises:
        ValueError: for `black` if the classifier has no preprocess, which defines black's values after normalisation.
    """
    if kind == "mean":
        return torch.zeros(1, images.shape[1], 1, 1, dtype=images.dtype, device=images.device)
    if kind == "black":
        if classifier.preprocess is None:
            raise ValueError("baseline 'black' needs the classifier's preprocess, which defines the values of a black pixel")
        return classifier.preprocess.black()[None].to(images)
    sigma = min(images.shape[-2:]) / 20
    blurred: Tensor = gaussian_blur(images, kernel_size=[2 * round(2 * sigma) + 1] * 2, sigma=[sigma, sigma])
    return blurred
