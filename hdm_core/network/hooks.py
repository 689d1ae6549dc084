"""Hooks on a layer: read its activations and gradients, or replace its output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.network.logits import class_logits

# Layers that only pass on, pool or reshape the output of a convolution.
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
    """Output of a layer's last call, and the number of calls.

    Attributes:
        activations: (B, K, h, w), a leaf of the graph that follows; None before the first call.
        calls: calls so far.
    """

    activations: Tensor | None = None
    calls: int = 0


@contextmanager
def capture(layer: nn.Module) -> Iterator[CapturedOutput]:
    """Detach a layer's output into a leaf that receives gradients.

    The network continues with a copy, so that a later in-place operation does not overwrite the captured output. The output of every
    call is detached and the last one is stored; no gradient flows from it back to an earlier call. The hook is removed when the context
    ends.
    """
    captured = CapturedOutput()

    def detach_output(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise TypeError(f"the target layer must return a tensor (B, K, h, w); {type(layer).__name__} does not")
        captured.activations = output.detach().requires_grad_()
        captured.calls += 1
        return captured.activations.clone()

    handle = layer.register_forward_hook(detach_output)
    try:
        yield captured
    finally:
        handle.remove()


@dataclass(frozen=True)
class LayerOutput:
    """Logits of a network and the output of one layer, with the graph between the two.

    Attributes:
        layer: the submodule; None for the network's input.
        activations: (B, K, h, w); the images if `layer` is None.
        logits: (B, classes).
    """

    layer: nn.Module | None
    activations: Tensor
    logits: Tensor

    @torch.enable_grad()
    def gradients(self, targets: Tensor) -> Tensor:
        """Return the gradient of the targets' logits to the activations, (B, K, h, w).

        Args:
            targets: (B,) int64.

        Raises:
            ValueError: if the logits do not depend on the layer.
        """
        score = self.logits.gather(1, targets[:, None]).sum()
        gradients = torch.autograd.grad(score, self.activations, allow_unused=True)[0] if score.requires_grad else None
        if gradients is None:
            raise ValueError("the network's logits do not depend on the target layer: name another one with layer=")
        return gradients


def forward_to(network: nn.Module, layer: nn.Module | None, images: Tensor) -> LayerOutput:
    """Run one forward pass with the graph after `layer`, or all of it if None.

    Raises:
        TypeError: if the layer does not return (B, K, h, w).
        ValueError: if the layer is not called.
    """
    if layer is None:
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            return LayerOutput(None, images, class_logits(network, images))
    with capture(layer) as captured, torch.enable_grad():
        logits = class_logits(network, images)
    return LayerOutput(layer, _captured_activations(captured), logits)


@torch.no_grad()
def activations_and_logits(network: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return a layer's output (B, K, h, w) and the logits (B, classes) of one forward.

    Raises:
        TypeError: if the layer does not return (B, K, h, w).
        ValueError: if the layer is not called.
    """
    with capture(layer) as captured:
        logits = class_logits(network, images)
    return _captured_activations(captured).detach(), logits


def _captured_activations(captured: CapturedOutput) -> Tensor:
    if captured.activations is None:
        raise ValueError("the network's forward does not call the target layer: name another one with layer=")
    return captured.activations


@torch.no_grad()
def count_calls(network: nn.Module, layer: nn.Module, images: Tensor) -> int:
    """Count the calls of a layer in one forward pass."""
    with capture(layer) as captured:
        network(images[:1])
    return captured.calls


@torch.no_grad()
def logits_with_activations(network: nn.Module, layer: nn.Module, calls: int, activations: Tensor, images: Tensor) -> Tensor:
    """Return the logits when the last call of a layer is replaced by `activations`.

    Args:
        calls: calls of the layer in one forward, as `count_calls` returns.
        activations: (B, K, h, w), returned by the last call.
        images: (B, C, H, W).

    Returns:
        (B, classes).
    """
    call = 0

    def replace_output(_module: nn.Module, _inputs: object, output: object) -> object:
        nonlocal call
        call += 1
        return activations if call == calls else output

    handle = layer.register_forward_hook(replace_output)
    try:
        return class_logits(network, images)
    finally:
        handle.remove()


def last_spatial_layer(network: nn.Module, images: Tensor) -> nn.Module:
    """Find the last submodule to finish whose output (B, K, h, w) exceeds one pixel.

    Submodules count in the order in which their calls return. Pooling, dropout and the like are skipped. A stage returns after its blocks
    and a block after its skip connection: for torchvision's families the result is the last convolutional stage, such as ResNet's layer4.

    Raises:
        ValueError: if no submodule returns such a map, or the network turns its maps into tokens (B, N, K), which have no rows and columns.
    """
    last: nn.Module | None = None
    tokens = False
    skipped: Tensor | None = None  # also the output of a submodule that ends with such a layer

    def record(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal last, tokens, skipped
        if not isinstance(output, Tensor) or output is skipped:
            return
        if isinstance(module, _TRANSPARENT):
            skipped = output
        elif output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            last, tokens = module, False
        elif output.ndim == 3:
            tokens = True

    handles = [module.register_forward_hook(record) for module in network.modules() if module is not network]
    try:
        with torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    if tokens:
        raise ValueError(
            "this network classifies from tokens, which have no rows and columns: name a layer with maps (B, K, h, w) with layer="
        )
    if last is None:
        raise ValueError("no layer of this network returns a map (B, K, h, w): name one with layer=")
    return last
