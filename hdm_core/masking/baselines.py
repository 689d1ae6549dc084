"""What a masked pixel becomes (decision D3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from hdm_core.classifier import Classifier
from hdm_core.settings import Baseline


def baseline_image(kind: Baseline, classifier: Classifier, images: Tensor) -> Tensor:
    """The picture that shows where a mask is 0, broadcastable to images (B, C, H, W).

    `mean`: zero after normalisation, so that the masked image is M * X; `black`: zero before it; `blur`: the image under a
    Gaussian of 1/20 of its short side.

    Raises:
        ValueError: for `black` if the classifier has no preprocess, which alone knows what black is after normalisation.
    """
    if kind == "mean":
        return torch.zeros(1, images.shape[1], 1, 1, dtype=images.dtype, device=images.device)
    if kind == "black":
        if classifier.preprocess is None:
            raise ValueError("baseline 'black' needs the classifier's preprocess: without it nothing says what black is")
        return classifier.preprocess.black()[None].to(images)
    sigma = min(images.shape[-2:]) / 20
    blurred: Tensor = gaussian_blur(images, kernel_size=[2 * round(2 * sigma) + 1] * 2, sigma=[sigma, sigma])
    return blurred
