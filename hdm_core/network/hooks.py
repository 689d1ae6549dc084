"""Hooks on a layer: read its activations and gradients, or replace its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.network.axes import locate
from hdm_core.network.gradients import NoGradientError, gradient_of
from hdm_core.network.logits import class_logits
from hdm_core.network.target_layer import TargetLayer, as_floats, checked_map

_NAME_ANOTHER = "name another one with layer="
_ROUNDING = 1e-5  # of logits, relative to the largest


@dataclass
class CapturedOutput:
    """Output of a layer's last call that returned a map, and the number of such calls.

    Attributes:
        activations: (B, K, h, w), a leaf of the graph that follows; None before the first such call.
        calls: calls so far that returned maps.
        other: a call's output that is no map; None if there was none.
    """

    activations: Tensor | None = None
    calls: int = 0
    other: object = None


@contextmanager
def capture(layer: TargetLayer) -> Iterator[CapturedOutput]:
    """Detach a layer's output into a leaf that receives gradients.

    The network continues with a copy, so that a later in-place operation does not overwrite the captured output. The output of every
    call that returns maps is detached and the last one is stored; no gradient flows from it back to an earlier call. Tokens that are no
    patch of the image, such as a class token, are constants. Other outputs, such as those of an activation function that the head uses
    too, pass unchanged. The hook is removed when the context ends.
    """
    captured = CapturedOutput()

    def detach_output(_module: nn.Module, _inputs: object, output: object) -> object:
        if not layer.fits(output):
            captured.other = output
            return output
        if output.is_quantized:  # it has no gradient, so that it need not be detached
            captured.activations = layer.to_maps(as_floats(output)).requires_grad_()
            captured.calls += 1
            return output
        # A clone of an inference tensor outside inference mode is an ordinary one, which may require a gradient.
        detached = output.clone() if output.is_inference() else output.detach()
        captured.activations = layer.to_maps(detached).requires_grad_()
        captured.calls += 1
        return layer.from_maps(captured.activations, detached).clone()

    handle = layer.module.register_forward_hook(detach_output)
    try:
        yield captured
    finally:
        handle.remove()


@dataclass(frozen=True)
class LayerOutput:
    """Logits of a network and the output of one layer, with the graph between the two.

    Attributes:
        layer: the layer and the axes of its output; None for the network's input.
        activations: (B, K, h, w); the images if `layer` is None.
        logits: (B, classes).
        depends: returns whether the logits depend on the layer's output; runs a forward pass of one image.
    """

    layer: TargetLayer | None
    activations: Tensor
    logits: Tensor
    depends: Callable[[], bool] = lambda: True

    @torch.enable_grad()
    def gradients(self, targets: Tensor) -> Tensor:
        """Return the gradient of the targets' logits to the activations, (B, K, h, w).

        Args:
            targets: (B,) int64.

        Raises:
            ValueError: if the logits do not depend on the layer, or no gradient reaches it.
        """
        return self.gradients_of_score(self.logits.gather(1, targets[:, None]).sum())

    def gradients_of_score(self, score: Tensor) -> Tensor:
        """Return the gradient of a score to the activations, (B, K, h, w).

        Args:
            score: a weighted sum of the logits.

        Raises:
            ValueError: if the logits do not depend on the layer, or no gradient reaches it.
        """
        try:
            return gradient_of(score, self.activations, "the images" if self.layer is None else "the target layer")
        except NoGradientError:
            if self.depends():
                raise
            raise ValueError(f"the network's logits do not depend on the target layer: {_NAME_ANOTHER}") from None


def forward_to(network: nn.Module, layer: TargetLayer | nn.Module | None, images: Tensor) -> LayerOutput:
    """Run one forward pass with the graph after `layer`, or all of it if None.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        layer: a layer with its axes, or a submodule, whose axes are then found by `locate`.
        images: (B, C, H, W).

    Raises:
        TypeError: if the layer does not return one map per image.
        ValueError: if the layer is not called, or the axes of its output are not clear.
    """
    if layer is None:
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            return LayerOutput(None, images, class_logits(network, images))
    located = layer if isinstance(layer, TargetLayer) else locate(network, layer, images)
    with capture(located) as captured, torch.enable_grad():
        logits = class_logits(network, images)
    activations = _captured_activations(located, captured, images)
    return LayerOutput(located, activations, logits, lambda: depends_on(network, located, images[:1]))


@torch.no_grad()
def depends_on(network: nn.Module, layer: TargetLayer, images: Tensor) -> bool:
    """Return whether other activations of the layer give other logits."""
    activations, logits = activations_and_logits(network, layer, images)
    changed = logits_with_activations(network, layer, count_calls(network, layer, images), 1 - 2 * activations, images)
    return not bool((changed - logits).abs().amax() <= _ROUNDING * logits.abs().amax())  # also if NaN


@torch.no_grad()
def activations_and_logits(network: nn.Module, layer: TargetLayer | nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return a layer's output (B, K, h, w) and the logits (B, classes) of one forward.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        layer: as for `forward_to`.
        images: (B, C, H, W).

    Raises:
        TypeError: if the layer does not return one map per image.
        ValueError: if the layer is not called, or the axes of its output are not clear.
    """
    located = layer if isinstance(layer, TargetLayer) else locate(network, layer, images)
    with capture(located) as captured:
        logits = class_logits(network, images)
    return _captured_activations(located, captured, images).detach(), logits


def _captured_activations(layer: TargetLayer, captured: CapturedOutput, images: Tensor) -> Tensor:
    if captured.activations is None and captured.other is None:
        raise ValueError(f"the network's forward does not call the target layer: {_NAME_ANOTHER}")
    checked_map(layer.module, captured.other if captured.activations is None else captured.activations, len(images))
    assert captured.activations is not None  # noqa: S101 - checked_map refuses what is no map
    return captured.activations


@torch.no_grad()
def count_calls(network: nn.Module, layer: TargetLayer, images: Tensor) -> int:
    """Count the calls of a layer that return a map in one forward pass."""
    with capture(layer) as captured:
        network(images[:1])
    return captured.calls


@torch.no_grad()
def logits_with_activations(network: nn.Module, layer: TargetLayer, calls: int, activations: Tensor, images: Tensor) -> Tensor:
    """Return the logits when the last map of a layer is replaced by `activations`.

    Args:
        calls: calls of the layer that return a map in one forward, as `count_calls` returns.
        activations: (B, K, h, w), in place of the last such call's.
        images: (B, C, H, W).

    Returns:
        (B, classes).
    """
    call = 0

    def replace_output(_module: nn.Module, _inputs: object, output: object) -> object:
        nonlocal call
        if not layer.fits(output):
            return output
        call += 1
        return _in_type_of(output, layer.from_maps(activations, as_floats(output))) if call == calls else output

    handle = layer.module.register_forward_hook(replace_output)
    try:
        return class_logits(network, images)
    finally:
        handle.remove()


def _in_type_of(output: Tensor, values: Tensor) -> Tensor:
    """Return a copy of values in the type of a layer's output, quantised as it is."""
    if not output.is_quantized:
        return values.clone()
    if output.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return torch.quantize_per_tensor(values, output.q_scale(), output.q_zero_point(), output.dtype)
    raise ValueError(f"the target layer's output is quantised per channel: {_NAME_ANOTHER}")
