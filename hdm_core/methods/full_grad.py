"""FullGrad: contributions of the pixels and of every layer's biases to a logit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.masking.ops import normalise, upsample
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.logits import class_logits
from hdm_core.settings import Settings
from hdm_core.sources.exported import require_layers


class FullGradSettings(Settings):
    """Settings of FullGrad: none."""


@dataclass(frozen=True)
class FullGradient:
    """Terms of a logit.

    For a network of convolutions, batch normalisation, linear layers and ReLU all terms sum to the logit.

    Attributes:
        pixels: the input times its gradient, (B, C, H, W).
        layers: biases times the gradient to the output, (B, K, h, w), one per call of a convolution or batch normalisation.
        heads: the same for linear layers, whose biases have no position in the image, (B, ..., K).
    """

    pixels: Tensor
    layers: list[Tensor]
    heads: list[Tensor]


@torch.enable_grad()
def full_gradient(network: nn.Module, images: Tensor, targets: Tensor) -> FullGradient:
    """Compute the full gradient of the targets' logits, each term in logits.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,) int64.

    Raises:
        ValueError: if a batch normalisation has no running statistics, or the network is an exported program.
    """
    require_layers(network)
    images = images.detach().requires_grad_()
    biases = {module: bias for module in network.modules() if (bias := effective_bias(module)) is not None}
    with _record_outputs(biases) as calls:
        score = class_logits(network, images).gather(1, targets[:, None]).sum()
    # Zeros for a layer that the logits do not depend on.
    gradient, *gradients = torch.autograd.grad(score, [images, *(output for _, output in calls)], materialize_grads=True)
    layers, heads = [], []
    for (module, _), layer_gradient in zip(calls, gradients, strict=True):
        if isinstance(module, nn.Linear):
            heads.append(layer_gradient * biases[module])
        else:
            layers.append(layer_gradient * biases[module][:, None, None])
    return FullGradient(images.detach() * gradient, layers, heads)


@contextmanager
def _record_outputs(modules: Iterable[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Record every call of the modules with its output, in order of the calls."""
    calls: list[tuple[nn.Module, Tensor]] = []

    def record(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        calls.append((module, output))
        return output.clone()  # so that a later in-place operation does not change the recorded output

    handles = [module.register_forward_hook(record) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def effective_bias(module: nn.Module) -> Tensor | None:
    """Return the constant that a layer adds to a linear function of its input, (K,).

    For batch normalisation it is beta - mu gamma / sigma; None for a layer without one.

    Raises:
        ValueError: if a batch normalisation has no running statistics.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return module.bias
    if not isinstance(module, nn.BatchNorm2d):
        return None
    if module.running_mean is None or module.running_var is None:
        raise ValueError("full_grad needs the running statistics of batch normalisation: without them a layer has no fixed bias")
    scale = (module.running_var + module.eps).rsqrt()
    if not module.affine:
        return -module.running_mean * scale
    return module.bias - module.running_mean * module.weight * scale


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


def _extra_passes(settings: FullGradSettings, classifier: Classifier, image: Tensor) -> int:
    """Return 0: a network adds no passes, but it must have layers."""
    require_layers(classifier.module)
    return 0


FULL_GRAD = Method(
    id="full_grad",
    title="FullGrad",
    source="Srinivas, Fleuret: Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019, arXiv 1905.00780",
    settings=FullGradSettings,
    presets={"paper": FullGradSettings()},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: 1,
    network_passes=_extra_passes,
    family="gradient",
    sign="absolute values",
)
