"""Layer that a CAM looks at where none is named."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hdm_core.network.axes import locate
from hdm_core.network.hooks import depends_on
from hdm_core.network.logits import class_logits
from hdm_core.network.target_layer import LAST, TargetLayer

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
_TRIED = 8  # last layers of tokens, and last normalisations of tokens
_NO_PATCHES = (
    "this network classifies from tokens, and in no layer they lie on a grid of patches that leads to the logits: "
    "name a layer with maps (B, K, h, w) with layer="
)
_ROUNDING = 1e-6  # of equal computations, relative to the largest logit
# Per network: the images' shape (C, H, W), and the name of the layer that was chosen for it; None if no layer of tokens could be.
_chosen: WeakKeyDictionary[nn.Module, tuple[torch.Size, str | None]] = WeakKeyDictionary()


def default_layer(network: nn.Module, images: Tensor) -> TargetLayer:
    """Return the last layer with maps, or with tokens whose patches matter.

    After the last attention of a ViT only the class token leads to the logits: the output of its last block has no gradient at the patches.
    The choice is then the last normalisation whose patches lead to the logits, which is the first one of the last block. Where the logits
    depend on the patches of the last layer, such as with average pooling, it is the last one that determines the logits alone.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W); their size, type and device are used, not their content.

    Raises:
        ValueError: if no submodule returns maps, or tokens on a grid that lead to the logits.
    """
    if network in _chosen and _chosen[network][0] == images.shape[1:]:
        name = _chosen[network][1]
        if name is None:
            raise ValueError(_NO_PATCHES)
        return locate(network, network.get_submodule(name), images)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *images.shape[1:], generator=generator, dtype=torch.float32).to(images)
    last, tokens = last_outputs(network, noise[:1])
    if last is None and not tokens:
        raise ValueError("no layer of this network returns a map (B, K, h, w): name one with layer=")
    chosen = _last_tokens(network, tokens, noise) if last is None else locate(network, last, images)
    names = {module: name for name, module in network.named_modules()}
    _chosen[network] = images.shape[1:], None if chosen is None else names[chosen.module]
    if chosen is None:
        raise ValueError(_NO_PATCHES)
    return chosen


@torch.no_grad()
def last_outputs(network: nn.Module, images: Tensor) -> tuple[nn.Module | None, dict[nn.Module, int]]:
    """Find the last submodule to finish whose output exceeds one pixel.

    There is none if tokens follow.

    The output may be (B, K, h, w) or (B, h, w, K): `locate` finds its axes. Submodules count in the order in which their calls return.
    Pooling, dropout and the like are skipped. A stage returns after its blocks and a block after its skip connection: for torchvision's
    families the result is the last convolutional stage, such as ResNet's layer4.

    Returns:
        the submodule, None if there is none; the number of tokens N per submodule that returns (B, N, K), in that order.
    """
    last: nn.Module | None = None
    tokens: dict[nn.Module, int] = {}
    skipped: Tensor | None = None  # also the output of a submodule that ends with such a layer

    def record(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal last, skipped
        if not isinstance(output, Tensor) or output is skipped:
            return
        if isinstance(module, _TRANSPARENT):
            skipped = output
        elif output.ndim == 4 and len(output) == 1 and sum(length > 1 for length in output.shape[1:]) > 1:
            last = module
        elif output.ndim == 3:
            last = None
            tokens.pop(module, None)  # a later call counts
            tokens[module] = output.shape[1] if len(output) == 1 else 0

    handles = [module.register_forward_hook(record) for module in network.modules() if module is not network]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return last, tokens


def _last_tokens(network: nn.Module, tokens: dict[nn.Module, int], images: Tensor) -> TargetLayer | None:
    """Choose among layers of tokens; None if none has patches that lead to the logits.

    Args:
        tokens: number of tokens per layer, in the order in which they return.
        images: two of them, (2, C, H, W).
    """
    for count in dict.fromkeys(reversed(tokens.values())):
        # A projection is not taken: queries, keys and values are views of the tokens before it.
        layers = [layer for layer in reversed(tokens) if tokens[layer] == count and "linear" not in type(layer).__name__.lower()]
        if not layers:
            continue
        try:
            grid = locate(network, layers[0], images).grid
            if depends_on(network, TargetLayer(layers[0], LAST, grid), images[:1]):
                chosen = (layer for layer in layers[:_TRIED] if _determines(network, layer, images))
            else:
                norms = [layer for layer in layers if "norm" in type(layer).__name__.lower()][:_TRIED]
                chosen = (layer for layer in norms if depends_on(network, TargetLayer(layer, LAST, grid), images[:1]))
            if (layer := next(chosen, None)) is not None:
                return locate(network, layer, images)
        except (TypeError, ValueError):
            continue
    return None


@torch.no_grad()
def _determines(network: nn.Module, layer: nn.Module, images: Tensor) -> bool:
    """Return whether the logits depend on nothing but the layer's output.

    With the output of one image, another has the logits of the one.
    """
    outputs: list[Tensor] = []

    def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output.clone())

    with layer.register_forward_hook(record):
        expected = class_logits(network, images[:1])
    given = iter(outputs)
    with layer.register_forward_hook(lambda _module, _inputs, output: next(given, output)):
        logits = class_logits(network, images[1:])
    return bool((logits - expected).abs().amax() <= _ROUNDING * expected.abs().amax())
