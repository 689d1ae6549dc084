"""Activations of a layer and gradients to them, for the CAM family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.logits import class_logits

# Layers that only pass on, pool or reshape what a convolution made.
_TRANSPARENT = (nn.Dropout, nn.Identity, nn.Flatten, nn.AdaptiveAvgPool2d, nn.AvgPool2d)


@dataclass
class Captured:
    """What a layer put out, (B, K, h, w): a leaf of the graph behind it."""

    activations: Tensor | None = None


@contextmanager
def capture(layer: nn.Module) -> Iterator[Captured]:
    """Cuts the graph at a layer: its output becomes a leaf that gradients reach, and the network goes on with a copy.

    The copy keeps a later in-place operation from overwriting what was captured. The hook is gone after the context.
    """
    captured = Captured()

    def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise TypeError(f"the target layer must put out (B, K, h, w); {type(layer).__name__} does not")
        captured.activations = output.detach().requires_grad_()
        return captured.activations.clone()

    handle = layer.register_forward_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()


def activations_and_gradients(network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's output and the gradient of the targets' logits to it, each (B, K, h, w), in one pass.

    Raises:
        TypeError: if the layer does not put out (B, K, h, w).
        ValueError: if the layer takes no part in the network's answer.
    """
    with capture(layer) as captured, torch.enable_grad():
        logits = class_logits(network, images)
        if captured.activations is None:
            raise ValueError("the target layer was not called by the network's forward")
        score = logits.gather(1, targets[:, None]).sum()
        gradients = torch.autograd.grad(score, captured.activations, allow_unused=True)[0] if score.requires_grad else None
        if gradients is None:
            raise ValueError("the target layer takes no part in the network's answer")
    return captured.activations.detach(), gradients


def last_spatial_layer(network: nn.Module, images: Tensor) -> nn.Module:
    """The last layer without children, in order of execution, that puts out a map (B, K, h, w) larger than one pixel.

    Pooling, dropout and the like are passed over, so that for torchvision's families it is the end of the last
    convolutional stage.

    Raises:
        ValueError: if no layer puts out such a map.
    """
    found: list[nn.Module] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            found.append(module)

    leaves = [m for m in network.modules() if not any(m.children()) and not isinstance(m, _TRANSPARENT)]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        with torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError("no layer of this network puts out a map (B, K, h, w): name one with layer=")
    return found[-1]
