"""FullGrad: a logit as what the pixels and every layer's biases give to it, summed where they are in the image."""

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
    """Nothing to set."""


@dataclass(frozen=True)
class FullGradient:
    """The terms of a logit. For a network of convolutions, batch normalisation, linear layers and ReLU all terms sum to the logit.

    Attributes:
        pixels: the input times its gradient, (B, C, H, W).
        layers: for every call of a convolution or batch normalisation its biases times the gradient to its output, (B, K, h, w).
        heads: the same of linear layers, whose biases have no place in the image, (B, ..., K).
    """

    pixels: Tensor
    layers: list[Tensor]
    heads: list[Tensor]


@torch.enable_grad()
def full_gradient(network: nn.Module, images: Tensor, targets: Tensor) -> FullGradient:
    """The full gradient of the targets' logits, each term in logits: images (B, C, H, W), targets (B,), network frozen.

    Raises:
        ValueError: if a batch normalisation has no running statistics, or the network is an exported program.
    """
    require_layers(network)
    images = images.detach().requires_grad_()
    biases = {module: bias for module in network.modules() if (bias := effective_bias(module)) is not None}
    with _outputs(biases) as called:
        score = class_logits(network, images).gather(1, targets[:, None]).sum()
    # Zeros for a layer that takes no part in the answer.
    gradient, *gradients = torch.autograd.grad(score, [images, *(output for _, output in called)], materialize_grads=True)
    layers, heads = [], []
    for (module, _), slope in zip(called, gradients, strict=True):
        if isinstance(module, nn.Linear):
            heads.append(slope * biases[module])
        else:
            layers.append(slope * biases[module][:, None, None])
    return FullGradient(images.detach() * gradient, layers, heads)


@contextmanager
def _outputs(modules: Iterable[nn.Module]) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Notes every call of the modules, in order, and what it put out; a module that is called twice is there twice."""
    called: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        called.append((module, output))
        return output.clone()  # so that a later in-place operation leaves alone what was noted

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def effective_bias(module: nn.Module) -> Tensor | None:
    """What a layer adds to a linear function of its input, (K,), or None.

    For batch normalisation that is beta - mu gamma / sigma.

    Raises:
        ValueError: if a batch normalisation has no running statistics.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        return module.bias
    if not isinstance(module, nn.BatchNorm2d):
        return None
    if module.running_mean is None or module.running_var is None:
        raise ValueError("full_grad needs the running statistics of batch normalisation: without them a layer has no fixed bias")
    slope = (module.running_var + module.eps).rsqrt()
    if not module.affine:
        return -module.running_mean * slope
    return module.bias - module.running_mean * module.weight * slope


def _psi(term: Tensor, height: int, width: int) -> Tensor:
    """The psi of the paper's FullGrad map, summed over the channels: (B, K, h, w) -> (B, 1, H, W).

    Sizes are scaled to [0, 1] over all channels of a layer, so that a weak channel stays weak. Upsampling is linear, and the sum may come
    first.
    """
    scaled = normalise(term.abs().flatten(1)[:, None]).reshape(term.shape)
    return upsample(scaled.sum(1, keepdim=True), height, width)


def _run(job: ExplainJob, settings: FullGradSettings) -> RawMaps:
    height, width = job.images.shape[-2:]
    maps = []
    for images, targets in zip(torch.split(job.images, job.batch), torch.split(job.targets, job.batch), strict=True):
        full = full_gradient(job.classifier.module, images, targets)
        total = torch.stack([_psi(term, height, width) for term in (full.pixels, *full.layers)]).sum(0)
        maps.append(normalise(total).squeeze(1))
        job.passes.add(len(images))
    return RawMaps(torch.cat(maps))


def _no_more(settings: FullGradSettings, classifier: Classifier, image: Tensor) -> int:
    """The network adds no passes, but it must have layers."""
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
    network_passes=_no_more,
)
