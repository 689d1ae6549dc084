"""Blocks of a vision transformer, and the grid of patches of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hdm_core.network.attention import AttentionReader
from hdm_core.network.axes import locate
from hdm_core.network.logits import class_logits
from hdm_core.network.outputs import logits_in
from hdm_core.network.tokens import TokenGrid

_OTHERS = "choose another method"
_ROUNDING = 1e-4  # of logits through open and fused attention, relative to the largest


@dataclass(frozen=True)
class Transformer:
    """Vision transformer, whose blocks attend over all tokens.

    Attributes:
        network: images (B, C, H, W) -> logits (B, classes).
        blocks: submodules that return tokens (B, N, K) after one attention each, in order; the logits depend on those of the last alone.
        grid: place of the patches among the tokens.
    """

    network: nn.Module
    blocks: tuple[nn.Module, ...]
    grid: TokenGrid


# Per network: the images' shape (C, H, W), the names of its blocks, and the grid.
_found: WeakKeyDictionary[nn.Module, tuple[torch.Size, tuple[str, ...], TokenGrid]] = WeakKeyDictionary()


def find_transformer(network: nn.Module, images: Tensor) -> Transformer:
    """Find the blocks of a vision transformer, by one forward pass of noise.

    The calls of all attentions share the modules around them, up to the list of blocks: a block is the next module in. The result is stored
    for as long as the network lives.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W); their size, type and device are used, not their content.

    Raises:
        ValueError: if the network has no attention, or not one over all tokens in each block; if its tokens follow no grid of patches, or
            the logits depend on more than the tokens of the last block.
    """
    if network in _found and _found[network][0] == images.shape[1:]:
        _, names, grid = _found[network]
        return Transformer(network, tuple(network.get_submodule(name) for name in names), grid)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *images.shape[1:], generator=generator, dtype=torch.float32).to(images)
    blocks = _blocks(network, noise[:1])
    located = None
    with suppress(TypeError, ValueError):
        located = locate(network, blocks[-1], noise[:1]).grid
    if located is None:
        raise ValueError(f"the tokens of this network's blocks follow no grid of patches: {_OTHERS}")
    transformer = Transformer(network, blocks, located)
    _check_end(transformer, noise)
    name_of = {module: name for name, module in network.named_modules()}
    _found[network] = images.shape[1:], tuple(name_of[block] for block in blocks), located
    return transformer


@torch.no_grad()
def _blocks(network: nn.Module, image: Tensor) -> tuple[nn.Module, ...]:
    """Return the blocks of a network: see `find_transformer`."""
    stack: list[nn.Module] = []
    callers: list[tuple[nn.Module, ...]] = []
    shapes: list[torch.Size] = []
    outputs: dict[nn.Module, list[torch.Size | None]] = {}

    def enter(module: nn.Module, _inputs: object) -> None:
        stack.append(module)

    def leave(module: nn.Module, _inputs: object, output: object) -> None:
        stack.pop()
        outputs.setdefault(module, []).append(output.shape if isinstance(output, Tensor) else None)

    def read(attention: Tensor) -> None:
        callers.append(tuple(stack))
        shapes.append(attention.shape)

    handles = [module.register_forward_pre_hook(enter) for module in network.modules()]
    handles += [module.register_forward_hook(leave) for module in network.modules()]
    try:
        with AttentionReader(read) as reader:
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    if not shapes or reader.missed:
        unread = "attention to a part of the tokens, with masks or in an unusual layout"
        kind = unread if reader.missed else "no attention of tokens to each other"
        raise ValueError(f"this network has {kind}, and this method reads attention maps: {_OTHERS}")
    if any(shape[0] != 1 for shape in shapes):
        raise ValueError(f"the attention of this network is within windows, and this method needs it over all patches: {_OTHERS}")
    if len({shape[-1] for shape in shapes}) > 1:
        raise ValueError(f"the blocks of this network attend over different numbers of tokens: {_OTHERS}")
    blocks = tuple(_block_of(each, callers) for each in callers)
    if len(set(blocks)) < len(blocks) or any(len(outputs[block]) > 1 for block in blocks):
        raise ValueError(f"a block of this network attends more than once: {_OTHERS}")
    tokens = {outputs[block][0] for block in blocks}
    shape = next(iter(tokens))
    if len(tokens) > 1 or shape is None or len(shape) != 3 or shape[1] != shapes[0][-1]:
        raise ValueError(
            f"the blocks of this network do not return the tokens (B, {shapes[0][-1]}, K) that attend to each other: {_OTHERS}"
        )
    return blocks


def _block_of(caller: tuple[nn.Module, ...], callers: list[tuple[nn.Module, ...]]) -> nn.Module:
    """Return the block of an attention.

    It is the first module around it that is not around all others; of a single attention the innermost with a normalisation.

    Args:
        caller: the modules around the attention's call, from the network inwards.
        callers: those of all attentions.
    """
    if len(callers) == 1:
        return next(
            (each for each in reversed(caller) if any("norm" in type(part).__name__.lower() for part in each.children())), caller[-1]
        )
    shared = 0
    while all(len(each) > shared + 1 and each[shared] is caller[shared] for each in callers):
        shared += 1
    return caller[shared]


@contextmanager
def replaced_tokens(block: nn.Module, replace: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the tokens that a block returns, for as long as the context lasts."""
    with block.register_forward_hook(lambda _module, _inputs, output: replace(output)):
        yield


@contextmanager
def separate_blocks(transformer: Transformer) -> Iterator[list[Tensor]]:
    """Detach the tokens that enter each block.

    The list of those that leave it is yielded, in order.
    """
    outputs: list[Tensor] = []

    def detach(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(_detached(each) for each in args), {name: _detached(each) for name, each in kwargs.items()}

    def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)

    handles = [block.register_forward_pre_hook(detach, with_kwargs=True) for block in transformer.blocks]
    handles += [block.register_forward_hook(record) for block in transformer.blocks]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _detached(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value


@torch.no_grad()
def _check_end(transformer: Transformer, images: Tensor) -> None:
    """Raise an error unless the logits depend on the last block's tokens alone.

    Args:
        images: (2, C, H, W).
    """
    network, last = transformer.network, transformer.blocks[-1]
    tokens: list[Tensor] = []

    def store(output: Tensor) -> Tensor:
        tokens.append(output.clone())
        return output

    with replaced_tokens(last, store):
        expected = class_logits(network, images)
    expected = torch.cat([expected, expected.flip(0)])
    logits: Tensor | None = None
    # A head that expects as many images as the network was given raises one of these.
    doubled = replaced_tokens(last, lambda _output: torch.cat([tokens[0], tokens[0].flip(0)]))
    with suppress(RuntimeError, TypeError), AttentionReader(lambda attention: None), doubled:
        logits = logits_in(network(images.flip(0)))
    if logits is None or logits.shape != expected.shape or not _close(logits, expected):
        raise ValueError(f"the logits of this network depend on more than the tokens of its last block: {_OTHERS}")


def _close(logits: Tensor, expected: Tensor) -> bool:
    return bool((logits - expected).abs().amax() <= _ROUNDING * expected.abs().amax())
