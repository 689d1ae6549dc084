"""Stand-ins of a network's parts that record, replace or rescale their outputs; no hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Tap(nn.Module):
    """A part that keeps the input and the output of every call, as leaves or with their gradient retained."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def forward(self, *xs: Tensor) -> Tensor:
        self.inputs.append(xs[0].detach().clone())
        y = self.part(*xs)
        y = y.clone() if y.requires_grad else leaf(y)
        self.outputs.append(y)
        return y.clone()  # so that a later in-place operation does not change what is kept


class LastCall(nn.Module):
    """A part whose last call of a forward returns something else.

    Attributes:
        replacement: of the output; None while calls are counted.
        axis: "first", or "last" where the output is (B, h, w, K) and the replacement (B, K, h, w), or "tokens h w" where it is (B, N, K).
    """

    def __init__(self, part: nn.Module, axis: str) -> None:
        super().__init__()
        self.part, self.axis = part, axis
        self.calls, self.total = 0, 0
        self.replacement: Tensor | None = None
        self.output: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.part(x)
        if self.replacement is None:
            self.total = self.calls
            self.output = y.detach().clone()
            return y
        if self.calls < self.total:
            return y
        given = self.replacement.clone()
        if self.axis.startswith("tokens"):
            return given.flatten(2).transpose(1, 2)
        return given.permute(0, 2, 3, 1) if self.axis == "last" else given


class RescaledPart(nn.Module):
    """An activation or max-pool with DeepLIFT's multipliers, once the reference has run through it.

    Attributes:
        known: input and output of every call for the reference; None while the reference runs.
    """

    def __init__(self, part: nn.Module, multiplier: Callable[..., Tensor]) -> None:
        super().__init__()
        self.part, self.multiplier = part, multiplier
        self.recording: list[tuple[Tensor, Tensor]] = []
        self.known: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.known is None:
            kept = x.clone()
            y = self.part(x)
            self.recording.append((kept, y.detach().clone()))
            return y
        x0, y0 = self.known.pop(0)
        return self.multiplier(self.part, x, x0, y0)


def replace(network: nn.Module, name: str, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Put a stand-in into the place of a part, wherever the network has it, and return it."""
    part = network.get_submodule(name)
    stand_in = make(part)
    for parent in list(network.modules()):
        if parent is stand_in:
            continue
        for child, module in list(parent.named_children()):
            if module is part:
                setattr(parent, child, stand_in)
    return stand_in


def roles(network: nn.Module, *wanted: str) -> list[str]:
    """Return the names of the parts with one of these roles."""
    names = [name for name, module in network.named_modules() if module.__dict__.get("role") in wanted]
    return [name.removesuffix("._orig_mod") for name in names]  # a compiled part is called through its wrapper


def leaf(images: Tensor) -> Tensor:
    """Return images that gradients reach."""
    return images.detach().clone().requires_grad_()


def gradients_of(score: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Return d score / d inputs; zeros where an input has no part in it."""
    if not score.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(score, inputs, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
