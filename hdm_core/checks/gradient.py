"""Check of the gradient from the logits to the input."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from hdm_core.checks.finding import Finding
from hdm_core.checks.probes import probe_images
from hdm_core.classifier import Classifier
from hdm_core.network.agreement import answer
from hdm_core.network.gradients import DetachRecorder, NoGradientError, gradient_of, refuses_gradient
from hdm_core.network.logits import class_logits

# Relative, of the gradient's norm: rounding differs by batch size, and may open or close single ReLUs.
_TOLERANCE = 0.1


def check_gradient(classifier: Classifier, images: Tensor, batch: int = 4) -> Finding:
    """Differentiate the highest logit of an image, alone and beside noise.

    Args:
        images: (B, C, H, W), as the classifier's preprocess gives them.
        batch: upper limit of images per forward pass; with 1 there is no noise beside the image.
    """
    probes = probe_images(images, 1)[:2]
    try:
        with torch.inference_mode(False), torch.enable_grad(), classifier.frozen() as network:
            with DetachRecorder() as recorder:
                alone = _gradient(network, probes[:1])
            both = alone if batch == 1 else _gradient(network, probes)
    except ValueError as error:  # no gradient, or none that can be computed
        return Finding("gradient", "refused", str(error))
    if not alone.isfinite().all():
        return Finding("values", "doubtful", "the gradient of the highest logit to the input is NaN or infinite")
    if not both.any() and _rounds(classifier, probes):
        return Finding(
            "gradient",
            "refused",
            "the gradient of the logits to the input is zero everywhere, and the logits differ between images: the network rounds, "
            "thresholds or counts; return the numbers before, or use a method without gradients, such as rise, score_cam or eigen_cam",
        )
    if not alone.any():
        return Finding("values", "doubtful", "the gradient of the highest logit to the input is zero everywhere, so that maps are flat")
    if (alone - both[:1]).norm() > _TOLERANCE * alone.norm():
        return Finding(
            "single image",
            "refused",
            "the gradient of an image's logit differs between the image alone and beside others, while the logits do not: a backward is "
            "wrong, such as that of torch's batch normalisation for one permuted map; add .contiguous() before it",
        )
    if recorder.loses_part:
        return Finding(
            "gradient",
            "doubtful",
            "a branch of the network is detached or runs under torch.no_grad(): the gradient, and maps by it, are those of the rest alone",
        )
    return Finding("gradient", "ok", "the gradient of the logits reaches the input")


def _gradient(network: nn.Module, images: Tensor) -> Tensor:
    """Return the gradient of the highest logits to the images.

    Raises:
        ValueError: if there is none, or torch makes it up.
    """
    images = images.clone().requires_grad_()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            logits = class_logits(network, images)
        except RuntimeError as error:
            if refuses_gradient(error):
                raise NoGradientError("the images") from None
            raise
        score = logits.amax(1).sum()  # a sum keeps the images independent of each other
        gradient = gradient_of(score, images)
    if any("autograd kernel was not registered" in str(each.message) for each in caught):  # of quantised operations
        raise NoGradientError("the images")
    return gradient


def _rounds(classifier: Classifier, images: Tensor) -> bool:
    """Return whether no logit has a slope, and the logits of two images differ.

    The highest logit alone proves nothing: of a yes/no network with the logits 0 and z it may be the constant.
    """
    with torch.inference_mode(False), classifier.frozen() as network:
        first, second = (answer(network, image[None]) for image in images)
    if any(each.gradient is None or each.gradient.any() or not each.logits.isfinite().all() for each in (first, second)):
        return False
    return not torch.equal(first.logits, second.logits)
