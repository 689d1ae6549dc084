"""Axes of a layer's output: which hold channels, rows and columns of the image."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from hdm_core.network.target_layer import FIRST, LAST, Axes, TargetLayer, as_floats, checked_map
from hdm_core.network.tokens import TokenGrid, find_grid

# Layers that have the channels at axis 1, whatever their subclass adds.
_POOLS = (_AvgPoolNd, _MaxPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)
_CHANNELS_FIRST = (_ConvNd, _BatchNorm, _InstanceNorm, nn.GroupNorm, *_POOLS)
# Shift of the centre of change, in axis lengths, from a change at one edge of the image to one at the opposite edge. In 92 networks of
# torchvision and timm with random weights it is 0.05 to 0.79 along the axis that follows the edge, and below 0.04 along the others. In an
# output of n numbers chance alone shifts it by about 1 / sqrt(n).
_SHIFT = 0.03
_CHANCE = 3.0  # shifts below this / sqrt(n) are chance
# The axis that follows an edge must shift this many times as much as any other.
_DOMINANCE = 3
# A kind of layer is believed unless the change shifts this much along another axis than it should.
_CONTRADICTION = 0.2
# A change below this share of the largest activation is rounding.
_ROUNDING = 1e-5
_DRAWS = 2  # of noise images, until the shifts are clear
# A map of one row or column must belong to an image in which fewer than this many rows or columns are expected.
_STRIP = 3


# Per network and layer: the images' shape (C, H, W) that the axes were found for, the axes, and the grid of tokens.
_located: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, tuple[torch.Size, Axes, TokenGrid | None]]] = WeakKeyDictionary()


def locate(network: nn.Module, layer: nn.Module, images: Tensor) -> TargetLayer:
    """Find the axes of a layer's output.

    They are measured: a change at the top or bottom of the image moves the centre of the output's change along the rows' axis, one at the
    left or right along the columns' axis, and neither along the channels'. Where nothing moves clearly, such as in a network that mixes
    all positions, the kind of the layer decides: convolution, batch normalisation and pooling have their channels first, `nn.LayerNorm`
    over the last axis and `nn.Linear` last. Of tokens (B, N, K) the grid of patches is measured, see `find_grid`. The result is stored for
    as long as the network lives.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        layer: a submodule of it.
        images: (B, C, H, W); their size, type and device are used, not their content.

    Raises:
        TypeError: if the layer does not return a tensor of four axes, or tokens, with the images along the first.
        ValueError: if the layer is not called, no two axes of its output follow the image's rows and columns, or its tokens no grid of
            patches.
    """
    located = _located.setdefault(network, WeakKeyDictionary())
    if layer in located and located[layer][0] == images.shape[1:]:
        return TargetLayer(layer, *located[layer][1:])
    shifts = torch.zeros(2, 3)
    for draw in range(_DRAWS):
        output, kind = _observe(network, layer, _edge_changes(images, draw))
        if output.ndim == 3:
            located[layer] = images.shape[1:], LAST, _grid_of(network, layer, output.shape, images)
            return TargetLayer(layer, *located[layer][1:])
        shifts += _shifts(output)
        axes = _clear_axes(shifts / (draw + 1), output.shape)
        if axes is not None:
            break
    else:
        axes = _axes_of_kind(shifts / _DRAWS, kind)
    if axes is None or not _fits(axes, output.shape, images):
        shape = ", ".join(str(length) for length in output.shape[1:])
        raise ValueError(
            f"no axes of the target layer's output (B, {shape}) follow the rows and columns of the image: "
            "name a layer with maps (B, K, h, w) with layer="
        )
    located[layer] = images.shape[1:], axes, None
    return TargetLayer(layer, axes)


def _grid_of(network: nn.Module, layer: nn.Module, shape: torch.Size, images: Tensor) -> TokenGrid:
    """Find the grid of a layer's tokens, whose shape is (., N, K)."""
    grid = find_grid(network, layer, shape[1], images)
    if grid is None:
        height, width = images.shape[-2:]
        raise ValueError(
            f"the target layer's tokens (B, {shape[1]}, {shape[2]}) follow no grid of patches of the image's {height} x {width} pixels: "
            "name another layer with layer="
        )
    return grid


def _edge_changes(images: Tensor, seed: int) -> Tensor:
    """Return a noise image, and it changed at each of its edges, (5, C, H, W).

    The order is: unchanged, top, bottom, left, right.
    """
    channels, height, width = images.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    base: Tensor = torch.randn(channels, height, width, generator=generator)
    other: Tensor = torch.randn(channels, height, width, generator=generator)
    rows, columns = max(1, height // 3), max(1, width // 3)
    changed = base.repeat(5, 1, 1, 1)
    changed[1, :, :rows] = other[:, :rows]
    changed[2, :, -rows:] = other[:, -rows:]
    changed[3, :, :, :columns] = other[:, :, :columns]
    changed[4, :, :, -columns:] = other[:, :, -columns:]
    return changed.to(images)


@torch.no_grad()
def _observe(network: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Axes | None]:
    """Return a layer's last output of four axes, and the axes of its kind.

    Without such an output it is the last one.

    The kind is that of the last part of the network before whose output has the same shape, if one has a kind.
    """
    outputs: list[Tensor] = []
    others: list[object] = []
    kinds: dict[torch.Size, Axes] = {}  # by shape of the output
    kind: Axes | None = None

    def record_kind(module: nn.Module, _inputs: object, output: object) -> None:
        axes = _kind_of(module)
        if axes is not None and isinstance(output, Tensor):
            kinds[output.shape] = axes

    def record(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal kind
        if isinstance(output, Tensor) and output.ndim == 4:
            outputs.append(output.detach().clone())  # a later operation may overwrite it
            kind = kinds.get(output.shape)
        else:
            others.append(output)

    handles = [module.register_forward_hook(record_kind) for module in network.modules() if _kind_of(module) is not None]
    handles.append(layer.register_forward_hook(record))
    last: list[Tensor] = []
    try:
        for image in torch.split(images, 1):  # a larger batch might not fit into memory
            outputs.clear()
            network(image)
            if not outputs and not others:
                raise ValueError("the network's forward does not call the target layer: name another one with layer=")
            last.append(as_floats(checked_map(layer, outputs[-1] if outputs else others[-1], 1)))
            if last[-1].ndim == 3:
                break  # tokens: their edges are not looked at
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(last), kind


def _kind_of(module: nn.Module) -> Axes | None:
    if isinstance(module, _CHANNELS_FIRST):
        return FIRST
    # Subclasses of LayerNorm in torchvision and timm take channels first and permute inside.
    if type(module) is nn.Linear or (type(module) is nn.LayerNorm and len(module.normalized_shape) == 1):
        return LAST
    return None


def _shifts(output: Tensor) -> Tensor:
    """Return the vertical and the horizontal shifts of the centre of change, (2, 3).

    One column per axis; zeros where the output does not change.

    Args:
        output: for `_edge_changes`, (5, ., ., .).
    """
    change = (output[1:] - output[:1]).abs().float().cpu()
    largest = change.flatten(1).amax(1)
    if not bool((largest > _ROUNDING * output.abs().amax().float().cpu()).all()):  # also if NaN
        return torch.zeros(2, 3)
    change = change / largest[:, None, None, None]
    centres = []
    for axis in (1, 2, 3):
        profile = change.sum([other for other in (1, 2, 3) if other != axis])
        position = torch.linspace(-0.5, 0.5, profile.shape[1]) if profile.shape[1] > 1 else torch.zeros(1)
        centres.append((profile * position).sum(1) / profile.sum(1))
    top, bottom, left, right = torch.stack(centres, 1)
    return torch.stack([bottom - top, right - left])


def _clear_axes(shifts: Tensor, shape: torch.Size) -> Axes | None:
    """Return the axes if each edge moves the change along one axis of its own."""
    least = max(_SHIFT, _CHANCE / shape[1:].numel() ** 0.5)
    rows, columns = (_dominant(row, least) for row in shifts)
    single = [axis for axis in (1, 2, 3) if shape[axis] == 1]
    if rows is not None and columns is None and len(single) == 1:
        columns = single[0]
    elif columns is not None and rows is None and len(single) == 1:
        rows = single[0]
    if rows is None or columns is None or rows == columns:
        return None
    return 6 - rows - columns, rows, columns


def _dominant(shifts: Tensor, least: float) -> int | None:
    """Return the axis along which the change moves forwards, if it is one alone."""
    _, second, largest = shifts.abs().sort().values.tolist()
    axis = int(shifts.abs().argmax())
    return axis + 1 if shifts[axis] >= least and largest >= _DOMINANCE * second else None


def _axes_of_kind(shifts: Tensor, kind: Axes | None) -> Axes | None:
    """Return the kind's axes unless the shifts contradict them."""
    if kind is None:
        return None
    expected = torch.zeros(2, 3, dtype=torch.bool)
    expected[0, kind[1] - 1] = expected[1, kind[2] - 1] = True
    contradicts = (shifts.abs() >= _CONTRADICTION) & ~expected | (shifts <= -_CONTRADICTION)
    return None if contradicts.any() else kind


def _fits(axes: Axes, shape: torch.Size, images: Tensor) -> bool:
    """Return whether a map of one row or one column belongs to such images.

    Tokens (B, N, 1, K) have a single column, but images of N rows and one column are rare.
    """
    rows, columns = shape[axes[1]], shape[axes[2]]
    height, width = images.shape[-2:]
    return (rows > 1 or columns * height / width < _STRIP) and (columns > 1 or rows * width / height < _STRIP)
