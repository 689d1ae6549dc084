"""Parts of the grammar's networks: activations and pools by name, and what all parts share.

A part knows the truth about itself, which the references read: its `role` (affine "bias" with a bias per channel of maps, affine "linear"
without rows and columns, elementwise "act", "product", "maxpool") and the `axis` of its output's channels ("first", "last", "transposed",
or "none" where its rows and columns are not the image's).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 6
Factory = Callable[[int], nn.Module]


def known(module: nn.Module, role: str = "", axis: str = "first", rescaled: bool = False) -> nn.Module:
    """Note the truth about a part."""
    module.role, module.axis, module.rescaled = role, axis, rescaled
    return module


def with_axis(module: nn.Module, axis: str) -> nn.Module:
    """Note the axis of a part and of all parts in it."""
    for each in module.modules():
        each.axis = axis
    return module


class Function(nn.Module):
    """A function without parameters as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# Activations


class SwishWrittenOut(nn.Module):
    """x sigmoid(x) as a product: not one activation to those who see its operations."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.product = activation("sigmoid"), known(Product(), "product")

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.gate(x))


class SwishFunction(torch.autograd.Function):
    """x sigmoid(x) that saves memory, as EfficientNets have it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gate = torch.sigmoid(x)
        return gradient * gate * (1 + x * (1 - gate))


class Product(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


def activation(name: str) -> nn.Module:
    """Return an activation; those that DeepLIFT's page lists are `rescaled`."""
    make, rescaled = ACTS[name]
    return known(make(), "" if name in ("none", "swish_written_out") else "act", rescaled=rescaled)


def _function(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Function(function)


ACTS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "relu": (nn.ReLU, True),
    "none": (nn.Identity, False),
    "relu_in_place": (lambda: nn.ReLU(inplace=True), True),
    "shared_relu": (nn.ReLU, True),  # the grammar takes one for the whole network
    "F.relu": (_function(F.relu), True),
    "x.relu_": (_function(lambda x: x.relu_()), True),
    "relu6": (nn.ReLU6, True),
    "hardswish": (nn.Hardswish, True),
    "silu": (nn.SiLU, True),
    "silu_in_place": (lambda: nn.SiLU(inplace=True), True),
    "gelu": (nn.GELU, True),
    "prelu": (nn.PReLU, True),
    "leaky_in_place": (lambda: nn.LeakyReLU(0.2, inplace=True), True),
    "softplus": (nn.Softplus, True),
    "tanh": (nn.Tanh, True),
    "elu": (nn.ELU, True),
    "x.clamp": (_function(lambda x: x.clamp(min=0)), True),
    "clamp_both": (_function(lambda x: torch.clamp(x, -1, 1)), True),
    "sigmoid": (_function(torch.sigmoid), True),
    "abs": (_function(torch.abs), False),
    "maximum": (_function(lambda x: torch.maximum(x, torch.zeros_like(x))), False),
    "where": (_function(lambda x: torch.where(x > 0, x, 0.1 * x)), False),
    "square": (_function(lambda x: x * x / 2), False),
    "swish_written_out": (SwishWrittenOut, False),
    "swish_function": (_function(SwishFunction.apply), False),
    "sin": (_function(torch.sin), False),
}


# Pools

POOLS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "max": lambda: known(nn.MaxPool2d(2), "maxpool"),
    "max_overlapping": lambda: known(nn.MaxPool2d(3, 2, 1), "maxpool"),
    "F.max": lambda: known(Function(lambda x: F.max_pool2d(x, 2)), "maxpool"),
    "average": lambda: nn.AvgPool2d(2),
    "F.average": lambda: Function(lambda x: F.avg_pool2d(x, 2)),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((4, 3)),
    "lp": lambda: nn.LPPool2d(2, 2),
    "subsampled": lambda: Function(lambda x: x[:, :, ::2, ::2]),
    "bilinear": lambda: Function(lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear")),
    "nearest": lambda: nn.Upsample(scale_factor=2),
}
