"""Activations of a layer, gradients to them, and other values in their place, for the CAM family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.network.logits import class_logits

# Layers that only pass on, pool or reshape what a convolution made.
_TRANSPARENT = (
    nn.Dropout,
    nn.Dropout2d,
    nn.Identity,
    nn.Flatten,
    nn.AdaptiveAvgPool2d,
    nn.AvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.MaxPool2d,
)


@dataclass
class CapturedOutput:
    """What a layer put out in its last call, (B, K, h, w), a leaf of the graph behind it; and how often it was called."""

    activations: Tensor | None = None
    calls: int = 0


@contextmanager
def capture(layer: nn.Module) -> Iterator[CapturedOutput]:
    """Cuts the graph at a layer: its output becomes a leaf that gradients reach, and the network goes on with a copy.

    The copy keeps a later in-place operation from overwriting what was captured. A layer that is called several times is cut each time
    and the last call is kept: no way leads from its output back to an earlier call. The hook is gone after the context.
    """
    captured = CapturedOutput()

    def keep(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise TypeError(f"the target layer must put out (B, K, h, w); {type(layer).__name__} does not")
        captured.activations = output.detach().requires_grad_()
        captured.calls += 1
        return captured.activations.clone()

    handle = layer.register_forward_hook(keep)
    try:
        yield captured
    finally:
        handle.remove()


@dataclass(frozen=True)
class LayerOutput:
    """What a network answered and what a layer put out on the way, with the graph between the two.

    Attributes:
        layer: the submodule; None for the network's input.
        activations: (B, K, h, w); without a layer the images.
        logits: (B, classes).
    """

    layer: nn.Module | None
    activations: Tensor
    logits: Tensor

    @torch.enable_grad()
    def gradients(self, targets: Tensor) -> Tensor:
        """The gradient of the targets' logits, targets (B,), to the activations: (B, K, h, w).

        Raises:
            ValueError: if the layer takes no part in the network's answer.
        """
        score = self.logits.gather(1, targets[:, None]).sum()
        gradients = torch.autograd.grad(score, self.activations, allow_unused=True)[0] if score.requires_grad else None
        if gradients is None:
            raise ValueError("the target layer takes no part in the network's answer")
        return gradients


def forward_to(network: nn.Module, layer: nn.Module | None, images: Tensor) -> LayerOutput:
    """One forward pass, of which only what follows the layer is remembered, or all of it.

    Raises:
        TypeError: if the layer does not put out (B, K, h, w).
        ValueError: if the layer is not called.
    """
    if layer is None:
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            return LayerOutput(None, images, class_logits(network, images))
    with capture(layer) as captured, torch.enable_grad():
        logits = class_logits(network, images)
    return LayerOutput(layer, _called(captured), logits)


@torch.no_grad()
def activations_and_logits(network: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's output (B, K, h, w) and the network's logits (B, classes), in one forward pass.

    Raises:
        TypeError: if the layer does not put out (B, K, h, w).
        ValueError: if the layer is not called.
    """
    with capture(layer) as captured:
        logits = class_logits(network, images)
    return _called(captured).detach(), logits


def _called(captured: CapturedOutput) -> Tensor:
    if captured.activations is None:
        raise ValueError("the target layer was not called by the network's forward")
    return captured.activations


@torch.no_grad()
def calls_of(network: nn.Module, layer: nn.Module, images: Tensor) -> int:
    """How often a forward pass calls a layer."""
    with capture(layer) as captured:
        network(images[:1])
    return captured.calls


@torch.no_grad()
def logits_with(network: nn.Module, layer: nn.Module, calls: int, activations: Tensor, images: Tensor) -> Tensor:
    """The logits (B, classes) for images (B, C, H, W) when the last of a layer's calls puts out these activations (B, K, h, w)."""
    call = 0

    def swap(_module: nn.Module, _inputs: object, output: object) -> object:
        nonlocal call
        call += 1
        return activations if call == calls else output

    handle = layer.register_forward_hook(swap)
    try:
        return class_logits(network, images)
    finally:
        handle.remove()


def last_spatial_layer(network: nn.Module, images: Tensor) -> nn.Module:
    """The part of a network that is the last to end, in order of execution, with a map (B, K, h, w) larger than one pixel.

    Pooling, dropout and the like are passed over, and a stage ends after its blocks and they after their skip connections: for
    torchvision's families it is the last convolutional stage, such as ResNet's layer4.

    Raises:
        ValueError: if no part puts out such a map, or the network makes tokens (B, N, K) of its maps, which have no rows and columns.
    """
    found: nn.Module | None = None
    tokens = False
    passed_over: Tensor | None = None  # also the output of a part that ends with such a layer

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal found, tokens, passed_over
        if not isinstance(output, Tensor) or output is passed_over:
            return
        if isinstance(module, _TRANSPARENT):
            passed_over = output
        elif output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            found, tokens = module, False
        elif output.ndim == 3:
            tokens = True

    handles = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    try:
        with torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    if tokens:
        raise ValueError(
            "this network answers from tokens, which have no rows and columns: name a layer with maps (B, K, h, w) with layer="
        )
    if found is None:
        raise ValueError("no layer of this network puts out a map (B, K, h, w): name one with layer=")
    return found
