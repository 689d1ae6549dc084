"""Parts of the grammar's networks: convolutions, norms, activations, pools and extras by name.

A part knows the truth about itself, which the references read: its `role` (affine "bias" with a bias per channel of maps, affine "linear"
without rows and columns, elementwise "act", "product", "maxpool") and the `axis` of its output's channels ("first", "last", "transposed",
or "none" where its rows and columns are not the image's).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torchvision.ops import FrozenBatchNorm2d

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


# Convolutions: channels in -> WIDTH channels, or as many as come in where the kind fixes that.


class FunctionalConv(nn.Module):
    def __init__(self, channels: int, by_keyword: bool = False) -> None:
        super().__init__()
        donor = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.kernel, self.offset, self.by_keyword = donor.weight, donor.bias, by_keyword

    def forward(self, x: Tensor) -> Tensor:
        if self.by_keyword:
            return F.conv2d(input=x, weight=self.kernel, bias=self.offset, padding=1)
        return F.conv2d(x, self.kernel, self.offset, padding=1)


class StandardizedConv(nn.Conv2d):
    """A convolution whose weights are standardized in its forward, as in BiT."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-3), self.bias)


class DoubledConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class OverPixels(nn.Module):
    """A Conv1d, Conv3d or unfolded product in the place of a Conv2d."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.layer: nn.Module = {
            "conv1d": nn.Conv1d(channels, WIDTH, 3, padding=1),
            "conv3d": nn.Conv3d(channels, WIDTH, (1, 3, 3), padding=(0, 1, 1)),
            "unfold": nn.Linear(9 * channels, WIDTH),
            "linear": nn.Linear(channels, WIDTH),
        }[kind]

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "conv1d":
            return self.layer(x.flatten(2)).unflatten(2, x.shape[2:])
        if self.kind == "conv3d":
            return self.layer(x.unsqueeze(2)).squeeze(2)
        if self.kind == "linear":
            return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        patches = F.unfold(x, 3, padding=1).transpose(1, 2)
        return self.layer(patches).transpose(1, 2).unflatten(2, x.shape[2:])


class Twice(nn.Module):
    """A part that is called two times."""

    def __init__(self, part: nn.Module, before: nn.Module | None = None, after: nn.Module | None = None, norm_last: bool = False) -> None:
        super().__init__()
        self.before, self.part, self.between = before or nn.Identity(), part, after or nn.Identity()
        self.norm = norm_of("batch")(WIDTH) if norm_last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.part(self.between(self.part(self.before(x)))))


class Halved(nn.Module):
    """A module of parametrize that halves a weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _conv(**options: Any) -> Factory:
    return lambda channels: known(nn.Conv2d(channels, WIDTH, **{"kernel_size": 3, "padding": 1, **options}), "bias")


def _old_weight_norm(channels: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return known(nn.utils.weight_norm(nn.Conv2d(channels, WIDTH, 3, padding=1)), "bias")


def _parametrized(channels: int) -> nn.Module:
    conv = nn.Conv2d(channels, WIDTH, 3, padding=1)
    parametrize.register_parametrization(conv, "weight", Halved())
    return known(conv, "bias")


def _overridden(channels: int) -> nn.Module:
    conv = nn.Conv2d(channels, WIDTH, 3, padding=1)
    conv.forward = lambda x: F.conv2d(x, conv.weight, 3 * conv.bias, padding=1)
    return known(conv, "bias")


def _conv_part() -> nn.Module:
    return known(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), "bias")


def _first(channels: int) -> nn.Module:
    return nn.Identity() if channels == WIDTH else known(nn.Conv2d(channels, WIDTH, 1), "bias")


class SharedNorm(nn.Module):
    """One batch normalisation behind two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(bias=False)(channels), _conv_part()
        self.norm, self.act = norm_of("batch")(WIDTH), activation("relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.act(self.norm(self.first(x)))))


class NormAside(nn.Module):
    """A convolution whose output is used with and without its batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = _conv()(channels), norm_of("batch")(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


CONVS: dict[str, Factory] = {
    "plain": _conv(),
    "no_bias": _conv(bias=False),
    "pointwise": _conv(kernel_size=1, padding=0),
    "strided": _conv(stride=2),
    "no_padding": _conv(padding=0),
    "dilated": _conv(dilation=2, padding=2),
    "grouped": lambda channels: known(nn.Conv2d(channels, WIDTH, 3, padding=1, groups=math.gcd(channels, 3)), "bias"),
    "depthwise": lambda channels: known(nn.Conv2d(channels, channels, 3, padding=1, groups=channels), "bias"),
    "rectangular": _conv(kernel_size=(1, 5), padding=(0, 2)),
    "same": _conv(padding="same"),
    "reflect": _conv(padding_mode="reflect"),
    "circular": _conv(padding_mode="circular"),
    "transposed": lambda channels: known(nn.ConvTranspose2d(channels, WIDTH, 3, padding=1), "bias"),
    "functional": lambda channels: known(FunctionalConv(channels), "bias"),
    "keywords": lambda channels: known(FunctionalConv(channels, True), "bias"),
    "weight_norm": lambda channels: known(parametrizations.weight_norm(nn.Conv2d(channels, WIDTH, 3, padding=1)), "bias"),
    "spectral_norm": lambda channels: known(parametrizations.spectral_norm(nn.Conv2d(channels, WIDTH, 3, padding=1)), "bias"),
    "old_weight_norm": _old_weight_norm,
    "parametrized": _parametrized,
    "overridden": _overridden,
    "standardized": lambda channels: known(StandardizedConv(channels, WIDTH, 3, padding=1), "bias"),
    "doubled": lambda channels: known(DoubledConv(channels, WIDTH, 3, padding=1), "bias"),
    "conv1d": lambda channels: known(OverPixels(channels, "conv1d"), "linear"),
    "conv3d": lambda channels: known(OverPixels(channels, "conv3d"), "linear"),
    "unfold": lambda channels: known(OverPixels(channels, "unfold"), "linear"),
    "linear": lambda channels: known(OverPixels(channels, "linear"), "linear"),
    "called_twice": lambda channels: Twice(_conv_part(), _first(channels), activation("relu")),
    "twice_then_norm": lambda channels: Twice(_conv_part(), _first(channels), activation("relu"), norm_last=True),
    "shared_norm": SharedNorm,
    "norm_aside": NormAside,
}


# Norms


def trained(norm: nn.Module) -> nn.Module:
    """Give a norm weights and statistics as training leaves them."""
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.5, 2) if name.endswith(("weight", "var")) else tensor.normal_(0, 0.5)
    return norm


class PlainSubclass(nn.BatchNorm2d):
    """A batch normalisation of another name."""


class ActivatedNorm(nn.BatchNorm2d):
    """A batch normalisation with an activation inside, as timm's."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = known(nn.ReLU(), "act", rescaled=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))

    def apart(self) -> nn.Module:
        """Return the normalisation and the activation one after another."""
        norm = nn.BatchNorm2d(self.num_features)
        norm.load_state_dict(self.state_dict())
        return nn.Sequential(known(norm.to(self.weight).eval(), "bias"), self.act)


class ScaledNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 1.5 * super().forward(x)


class Reshaped(nn.Module):
    """A norm over another view of the activations."""

    def __init__(self, norm: nn.Module, kind: str) -> None:
        super().__init__()
        self.norm, self.kind = with_axis(norm, "last" if kind == "last" else "none"), kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "last":
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if self.kind == "flat":
            return self.norm(x.flatten(2)).unflatten(2, x.shape[2:])
        return self.norm(x.unsqueeze(2)).squeeze(2)


class FunctionalNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.statistics = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.statistics
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False)


class ScaleAndShift(nn.Module):
    """Gamma x + beta with parameters of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.shift


def norm_of(name: str) -> Factory:
    """Return the factory of a norm."""
    return lambda channels: trained(NORMS[name](channels))


NORMS: dict[str, Factory] = {
    "none": lambda channels: nn.Identity(),
    "batch": lambda channels: known(nn.BatchNorm2d(channels), "bias"),
    "batch_not_affine": lambda channels: known(nn.BatchNorm2d(channels, affine=False), "bias"),
    "batch_no_statistics": lambda channels: nn.BatchNorm2d(channels, track_running_stats=False),
    "sync": lambda channels: known(nn.SyncBatchNorm(channels), "bias"),
    "subclass": lambda channels: known(PlainSubclass(channels), "bias"),
    "activated": lambda channels: known(ActivatedNorm(channels)),
    "scaled": lambda channels: known(ScaledNorm(channels), "bias"),
    "frozen": lambda channels: known(FrozenBatchNorm2d(channels), "bias"),
    "functional": lambda channels: known(FunctionalNorm(channels), "bias"),
    "batch1d": lambda channels: known(Reshaped(nn.BatchNorm1d(channels), "flat"), "linear"),
    "batch3d": lambda channels: known(Reshaped(nn.BatchNorm3d(channels), "deep"), "linear"),
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "instance_tracked": lambda channels: known(nn.InstanceNorm2d(channels, affine=True, track_running_stats=True), "bias"),
    "group": lambda channels: nn.GroupNorm(3, channels),
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "layer_last": lambda channels: Reshaped(nn.LayerNorm(channels), "last"),
    "rms_last": lambda channels: Reshaped(nn.RMSNorm(channels), "last"),
    "local_response": lambda channels: nn.LocalResponseNorm(3),
    "unit_length": lambda channels: Function(lambda x: F.normalize(x, dim=1)),
    "scale_and_shift": lambda channels: known(ScaleAndShift(channels), "bias"),
}


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
