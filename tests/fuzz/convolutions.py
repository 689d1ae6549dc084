"""Convolutions of the grammar: channels in -> WIDTH channels, or as many as come in where the kind fixes that."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.fuzz.norms import norm_of
from tests.fuzz.parts import WIDTH, Factory, activation, known


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
