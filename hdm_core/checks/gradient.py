"""Check of the gradient: does it lead from the logits to the input?"""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.checks.finding import Finding
from hdm_core.checks.probes import probe_images
from hdm_core.classifier import Classifier
from hdm_core.network.logits import class_logits

NO_GRADIENT = (
    "no gradient of the logits reaches the input, because a part of the network runs under torch.no_grad(), is detached or quantised: "
    "give the network without it, or use a method that needs no gradient, such as rise, score_cam or eigen_cam"
)


def check_gradient(classifier: Classifier, images: Tensor) -> Finding:
    """Differentiate the highest logit of one image and of noise by the input.

    Args:
        images: (B, C, H, W), as the classifier's preprocess gives them.
    """
    probes = probe_images(images, 1)[:2]
    with torch.inference_mode(False), torch.enable_grad(), classifier.frozen() as network:
        probes.requires_grad_()
        score = class_logits(network, probes).amax(1).sum()
        gradient = torch.autograd.grad(score, probes, allow_unused=True)[0] if score.requires_grad else None
    if gradient is None:
        return Finding("gradient", "refused", NO_GRADIENT)
    if not gradient.isfinite().all():
        return Finding("values", "doubtful", "the gradient of the highest logit to the input is NaN or infinite for some images")
    if not gradient.any():
        return Finding("values", "doubtful", "the gradient of the highest logit to the input is zero everywhere, so that maps are flat")
    return Finding("gradient", "ok", "the gradient of the logits reaches the input")
