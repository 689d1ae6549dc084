"""Agreement of a network and its copy, in logits and in the gradient."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.network.logits import class_logits

# Largest difference of a logit, as a share of the spread of the logits. Fusing batch normalisation rounds at 1e-6 of them.
_SPREAD = 1e-3
# Plus this share of the largest logit, which is about eight steps of a float32 number.
_ROUNDING = 1e-6
# Largest difference of the gradient, as a share of its length.
_GRADIENT = 1e-2
# Or this multiple of the difference that a change of the images by `_NUDGE` of themselves, about eight steps of a float32 number, makes in
# the network's own gradient: rounding moves some inputs of a ReLU to the other side of 0, with random weights up to 0.2 of the length.
_NUDGES = 3.0
_NUDGE = 1e-6
# Values along a side of the smooth noise before it is upsampled.
_GRID = 4


@dataclass(frozen=True)
class Answer:
    """Logits of a network for test images, and their gradient.

    Attributes:
        logits: (N, classes).
        gradient: (N, C, H, W), of a weighted sum of the logits to the images; None if autograd finds no path between them.
    """

    logits: Tensor
    gradient: Tensor | None


def noise_like(images: Tensor) -> Tensor:
    """Draw two images of white noise and one of smooth noise, (3, C, H, W).

    The noise depends on the images' shape alone, so that what is found with it holds for all images. Mean 0 and standard deviation 1.
    """
    channels, height, width = images.shape[1:]
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(2, channels, height, width, generator=generator)
    smooth = F.interpolate(torch.randn(1, channels, _GRID, _GRID, generator=generator), size=(height, width), mode="bilinear")
    return torch.cat([fine, smooth]).to(images)


def answer(network: nn.Module, images: Tensor) -> Answer:
    """Return the logits of images and the gradient of their weighted sum."""
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about quantised operations that have no gradient
        logits = class_logits(network, images)
        if not logits.requires_grad:
            return Answer(logits.detach(), None)
        weights = torch.linspace(1, 2, logits.shape[1]).to(logits)  # of one class alone the logit may be constant
        (gradient,) = torch.autograd.grad((logits * weights).sum(), images, allow_unused=True)
    return Answer(logits.detach(), gradient)


def spread(logits: Tensor) -> float:
    """Return the spread of logits (N, classes) over images or classes, the smaller.

    Methods look at the change of a logit from image to image, and a softmax at differences between classes.
    """
    over_images = (logits.amax(0) - logits.amin(0)).mean()
    over_classes = (logits.amax(1) - logits.amin(1)).mean()
    return float(over_images if logits.shape[1] == 1 else torch.minimum(over_images, over_classes))


def logits_disagree(found: Tensor, expected: Tensor, scale: float) -> str | None:
    """Return in words how far logits are from the expected ones; None if close.

    Args:
        scale: spread of the network's logits, see `spread`.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"its copy returns {tuple(found.shape)} {found.dtype} instead of {tuple(expected.shape)} {expected.dtype}"
    if not expected.isfinite().all():
        return "its logits are not finite, so that its copy cannot be checked"
    difference = float((found - expected).abs().max())
    if difference <= _SPREAD * scale + _ROUNDING * float(expected.abs().max()):
        return None
    return f"its copy gives other logits: they differ by {difference:.2g}, and vary by {scale:.2g} over images or classes"


def gradients_disagree(found: Tensor | None, expected: Tensor | None, network: nn.Module, images: Tensor) -> str | None:
    """Return in words how far a gradient is from the expected one; None if close.

    Args:
        network: whose gradient for `images` is the expected one.
    """
    if found is None or expected is None:
        return None if found is expected else f"the gradient reaches the input in {'it' if found is None else 'its copy'} only"
    difference, length = float((found - expected).norm()), float(expected.norm())
    if difference <= _GRADIENT * length:
        return None
    nudged = answer(network, images * (1 + _NUDGE)).gradient
    if nudged is not None and difference <= _NUDGES * float((nudged - expected).norm()):
        return None
    return f"its copy gives another gradient: they differ by {difference:.2g}, and its length is {length:.2g}"
