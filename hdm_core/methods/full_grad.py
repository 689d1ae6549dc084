"""FullGrad: contributions of the pixels and of every layer's biases to a logit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.masking.ops import normalise, upsample
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.constants import ConstantRecorder, Origin
from hdm_core.network.gradients import DetachRecorder, NoGradientError, gradients_of
from hdm_core.network.logits import class_logits
from hdm_core.settings import Settings
from hdm_core.sources.exported import require_layers

# The terms may miss this share of their absolute sum, in units of the type's rounding: 1e-4 in float32. On a CPU it is up to 1e-7 in 24
# networks of torchvision, up to 1e-5 with convolutions rounded as on CUDA (TF32), and what layer normalisation or attention leaves out
# is 2e-3 and more.
_ROUNDINGS = 840
_LARGEST_SHARE = 1e-3  # for types that are coarser than float32
_OTHERS = "choose another method, such as integrated_gradients"


class FullGradSettings(Settings):
    """Settings of FullGrad: none."""


@dataclass(frozen=True)
class FullGradient:
    """Terms of a logit, which all together sum to it.

    Attributes:
        pixels: the input times its gradient, (B, C, H, W).
        layers: biases per channel times the gradient to the output, (B, K, h, w): one for each call of a convolution or batch normalisation
            with a bias, and each sum of maps and a tensor per channel.
        heads: the same for biases without a position in the image, such as those of linear layers, (B, ..., K).
        functions: the same for constants that are no biases, f(x) - f'(x) x of an elementwise function such as ReLU6, and -a b of a product
            of two activations, as in squeeze-and-excitation. The paper calls them implicit biases.
    """

    pixels: Tensor
    layers: list[Tensor]
    heads: list[Tensor]
    functions: list[Tensor]


@torch.enable_grad()
def full_gradient(network: nn.Module, images: Tensor, targets: Tensor) -> FullGradient:
    """Compute the full gradient of the targets' logits, each term in logits.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,) int64.

    Raises:
        ValueError: if the terms do not sum to the logits, no gradient reaches the images, a batch normalisation has no running statistics,
            or the network's layers are not accessible.
    """
    require_layers(network)
    images = images.detach().requires_grad_()
    # The recorder that is entered last sees the network's own calls alone, not those of the other.
    with ConstantRecorder() as recorder, DetachRecorder() as detached:
        logits = class_logits(network, images).gather(1, targets[:, None])[:, 0]
    if detached.loses_part:
        raise NoGradientError("the images", "only a part of the gradient")
    constants = recorder.constants
    gradient, *gradients = gradients_of(logits.sum(), [images, *(constant.output for constant in constants)])
    terms: dict[Origin, list[Tensor]] = {"layer": [], "head": [], "function": []}
    for constant, output_gradient in zip(constants, gradients, strict=True):
        windows = len(output_gradient) != len(images)  # of an image: the term has no position in it
        terms["head" if windows else constant.origin].append(output_gradient * constant.value)
    full = FullGradient(images.detach() * gradient, terms["layer"], terms["head"], terms["function"])
    _check_sum(full, logits.detach())
    return full


def _check_sum(full: FullGradient, logits: Tensor) -> None:
    """Raise an error if the terms of any image do not sum to its logit.

    Images whose terms are not finite are left to the caller.
    """
    terms = [full.pixels, *full.layers, *full.heads, *full.functions]
    if any(term.ndim == 0 or len(term) % len(logits) for term in terms):
        raise ValueError(f"full_grad needs activations with the images along their first axis: {_OTHERS}")
    rows = [term.reshape(len(logits), -1) for term in terms]
    total = torch.stack([row.sum(1) for row in rows]).sum(0)
    absolute = torch.stack([row.abs().sum(1) for row in rows]).sum(0)
    missing = (total - logits).abs() / absolute.clamp_min(torch.finfo(absolute.dtype).tiny)
    tolerance = min(_LARGEST_SHARE, _ROUNDINGS * torch.finfo(absolute.dtype).eps)
    if (missing[missing.isfinite()] > tolerance).any():
        share = float(missing[missing.isfinite()].amax())
        raise ValueError(
            f"full_grad cannot explain this network: pixels and biases do not sum to its logits, {share:.2g} of the terms' absolute sum is "
            "missing; it knows no layer, group or instance normalisation, no attention and no compiled parts: " + _OTHERS
        )


def _rescale_and_upsample(term: Tensor, height: int, width: int) -> Tensor:
    """Apply psi of the paper's FullGrad map and sum the channels: -> (B, 1, H, W).

    Absolute values are scaled to [0, 1] over all channels of a layer, so that a weak channel stays weak. Upsampling is linear, so the sum
    may come first.

    Args:
        term: (B, K, h, w).
        height, width: of the map.
    """
    scaled = normalise(term.abs().flatten(1)[:, None]).reshape(term.shape)
    return upsample(scaled.sum(1, keepdim=True), height, width)


def _run(job: ExplainJob, settings: FullGradSettings) -> RawMaps:
    height, width = job.images.shape[-2:]
    maps = []
    for images, targets in zip(torch.split(job.images, job.batch), torch.split(job.targets, job.batch), strict=True):
        full = full_gradient(job.classifier.module, images, targets)
        total = torch.stack([_rescale_and_upsample(term, height, width) for term in (full.pixels, *full.layers)]).sum(0)
        maps.append(normalise(total).squeeze(1))
        job.passes.add(len(images))
    return RawMaps(torch.cat(maps))


def _check(settings: FullGradSettings, classifier: Classifier, image: Tensor) -> Finding:
    """Check that pixels and biases sum to a logit of the network."""
    with classifier.frozen() as network:
        full_gradient(network, image, torch.zeros(len(image), dtype=torch.int64, device=image.device))
    return Finding("method", "ok", "pixels and biases sum to the logit")


FULL_GRAD = Method(
    id="full_grad",
    title="FullGrad",
    source="Srinivas, Fleuret: Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019, arXiv 1905.00780",
    settings=FullGradSettings,
    presets={"paper": FullGradSettings()},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: 1,
    check=_check,
    family="gradient",
    sign="absolute values",
)
