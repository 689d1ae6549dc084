"""Extras of the grammar's networks: gates, attention, constants, channels-last stages; odd forwards; heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.fuzz.parts import Factory, Function, Product, activation, known, with_axis


class Gate(nn.Module):
    """Squeeze-and-excitation; with `maps` a gate for every pixel instead of every channel."""

    def __init__(self, channels: int, maps: bool = False) -> None:
        super().__init__()
        self.maps = maps
        self.pool, self.product = nn.AdaptiveAvgPool2d(1), known(Product(), "product")
        self.narrow, self.act = known(nn.Conv2d(channels, 3, 1), "bias"), activation("relu")
        self.wide, self.gate = known(nn.Conv2d(3, 1 if maps else channels, 1), "bias"), activation("sigmoid")

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.gate(self.wide(self.act(self.narrow(x if self.maps else self.pool(x))))))


class Attention(nn.Module):
    """Self-attention over pixels: torch's own, written out, or within windows of two rows."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind, self.heads = kind, 2 - channels % 2
        self.norm = known(nn.LayerNorm(channels), axis="last")
        self.qkv, self.weights = known(nn.Linear(channels, 3 * channels), "linear", "last"), known(nn.Softmax(-1), axis="none")
        self.attention = nn.MultiheadAttention(channels, self.heads, batch_first=True) if kind == "torch" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if self.kind == "windows":
            x = F.pad(x, (0, 0, 0, height % 2))
            tokens = x.permute(0, 2, 3, 1).reshape(-1, 2 * width, channels)  # (B n, window, K)
        else:
            tokens = x.flatten(2).transpose(1, 2)
        normed = self.norm(tokens)
        if self.kind == "torch":
            mixed = self.attention(normed, normed, normed, need_weights=False)[0]
        else:
            q, k, v = self.qkv(normed).unflatten(2, (3, self.heads, channels // self.heads)).permute(2, 0, 3, 1, 4)
            mixed = (self.weights(q @ k.transpose(-2, -1) / 2) @ v).transpose(1, 2).flatten(2)
        tokens = tokens + mixed
        if self.kind == "windows":
            return tokens.reshape(batch, -1, width, channels)[:, :height].permute(0, 3, 1, 2)
        return tokens.transpose(1, 2).unflatten(2, (height, width))


class ChannelsLast(nn.Module):
    """A ConvNeXt or Swin stage: layers over (B, h, w, K) inside, (B, K, h, w) outside unless `stay`."""

    def __init__(self, channels: int, stay: bool = False) -> None:
        super().__init__()
        self.stay = stay
        parts = nn.Sequential(nn.LayerNorm(channels), known(nn.Linear(channels, channels), "linear"), activation("gelu"))
        self.body = with_axis(parts, "last")
        if stay:
            self.axis = "last"

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = x + self.body(x)
        return x if self.stay else x.permute(0, 3, 1, 2)


class Constant(nn.Module):
    """A buffer or parameter that is added to the activations or multiplied with them."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        value = torch.randn(1, channels, 1, 1)
        self.register_buffer("buffer", value)
        self.parameter = nn.Parameter(value.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "buffer_added":
            return x + self.buffer
        if self.kind == "buffer_added_in_place":
            return x.clone().add_(self.buffer)
        if self.kind == "parameter_added":
            return x + self.parameter
        return x * self.buffer


class Transposed(nn.Module):
    """A convolution over the transposed map: its rows are the image's columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = known(nn.Conv2d(channels, channels, 3, padding=1), "bias", "transposed")
        self.act = known(nn.ReLU(), "act", "transposed", rescaled=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x.transpose(2, 3))).transpose(2, 3)


class Split(nn.Module):
    """A convolution of one half of the channels, then a shuffle, as in ShuffleNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.conv = known(nn.Conv2d(channels - self.half, channels - self.half, 3, padding=1), "bias")

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.split([self.half, x.shape[1] - self.half], 1)
        x = torch.cat([left, self.conv(right)], 1)
        return x.flip(1)


EXTRAS: dict[str, Factory] = {
    "none": lambda channels: nn.Identity(),
    "squeeze_excitation": Gate,
    "spatial_gate": lambda channels: Gate(channels, maps=True),
    "attention": lambda channels: Attention(channels, "torch"),
    "attention_written_out": lambda channels: Attention(channels, "written out"),
    "windowed_attention": lambda channels: Attention(channels, "windows"),
    "channels_last": ChannelsLast,
    "buffer_added": lambda channels: known(Constant(channels, "buffer_added"), "bias"),
    "buffer_added_in_place": lambda channels: known(Constant(channels, "buffer_added_in_place"), "bias"),
    "parameter_added": lambda channels: known(Constant(channels, "parameter_added"), "bias"),
    "buffer_multiplied": lambda channels: known(Constant(channels, "buffer_multiplied")),
    "transposed": Transposed,
    "split": Split,
    "rolled": lambda channels: Function(lambda x: torch.roll(x, 1, 3)),
    "scripted": lambda channels: known(torch.jit.script(nn.Conv2d(channels, channels, 3, padding=1)), "bias"),
    "compiled": lambda channels: known(torch.compile(nn.Conv2d(channels, channels, 3, padding=1), backend="eager"), "bias"),
    "dropout": lambda channels: nn.Dropout(0.5),
}


# Odd forwards


class StraightThrough(torch.autograd.Function):
    """A sign with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign() + x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 1.5 * gradient


class Odd(nn.Module):
    """A stage with an odd forward around it."""

    def __init__(self, stage: nn.Module, kind: str) -> None:
        super().__init__()
        self.stage, self.kind, self.calls = stage, kind, 0
        if kind == "user_hook":
            stage.register_forward_hook(lambda module, inputs, output: 2 * output)
        if kind == "user_pre_hook":
            stage.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.5,))

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "no_grad":
                with torch.no_grad():
                    return self.stage(x)
            case "detach":
                return self.stage(x).detach()
            case "data":
                return self.stage(x.data)
            case "half_detached":
                y = self.stage(x)
                return y + y.detach()
            case "random_dropout":
                return F.dropout(self.stage(x), 0.3, training=True)
            case "noise":
                y = self.stage(x)
                return y + 0.1 * torch.randn_like(y)
            case "batch_mean":
                y = self.stage(x)
                return y - y.mean(0)
            case "batch_statistics":
                return F.batch_norm(self.stage(x), None, None, training=True)
            case "flat_view":
                y = self.stage(x).contiguous()
                return (2 * y.view(-1)).view(y.shape)
            case "shape_branch":
                y = self.stage(x)
                return F.pad(y, (0, 1)) if y.shape[3] % 2 else y
            case "batch_size_branch":
                y = self.stage(x)
                return y if len(x) == 1 else torch.stack([y[n] for n in range(len(x))])
            case "data_branch":
                y = self.stage(x)
                return 2 * y if bool(y.isnan().any()) else y
            case "view_in_place":
                y = self.stage(x).clone()
                y[:, :2].mul_(0.5)
                y[:, 0] += 1
                return y
            case "custom_function":
                return StraightThrough.apply(self.stage(x))
            case "counter":
                self.calls += 1
                return self.stage(x)
            case "checkpoint":
                return checkpoint(self.stage, x, use_reentrant=False)
            case "checkpoint_reentrant":
                return checkpoint(self.stage, x, use_reentrant=True)
            case _:
                return self.stage(x)


ODDS = (
    "none", "no_grad", "detach", "data", "half_detached", "random_dropout", "noise", "batch_mean", "batch_statistics", "flat_view",
    "shape_branch", "batch_size_branch", "data_branch", "view_in_place", "custom_function", "counter", "checkpoint", "checkpoint_reentrant",
    "user_hook", "user_pre_hook",
)  # fmt: skip


# Heads: (channels, rows, columns, classes) -> module


class Head(nn.Module):
    """The way from maps to logits.

    `pool` maps (B, K, h, w) to features; `layers` maps those to logits; `normalised` compares directions, as a cosine classifier.
    """

    def __init__(self, pool: Callable[[Tensor], Tensor] | nn.Module, layers: nn.Module, normalised: bool = False) -> None:
        super().__init__()
        self.pool = pool if isinstance(pool, nn.Module) else Function(pool)
        self.layers, self.normalised = layers, normalised

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(x)
        return self.layers(F.normalize(features, dim=1) if self.normalised else features)


class Summed(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    return known(nn.Linear(inputs, outputs, bias), "linear")


def _last(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(ChannelsLast(channels, stay=True), Head(lambda x: x.mean((1, 2)), linear(channels, classes)))


def _conv_then_pool(channels: int, classes: int) -> nn.Module:
    conv = known(nn.Conv2d(channels, classes, 1), "bias")
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


HEADS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "linear": lambda k, h, w, n: Head(_mean, linear(k, n)),
    "modules": lambda k, h, w, n: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), linear(k, n)),
    "no_bias": lambda k, h, w, n: Head(_mean, linear(k, n, False)),
    "flattened": lambda k, h, w, n: nn.Sequential(nn.Flatten(), linear(k * h * w, n)),
    "conv_then_pool": lambda k, h, w, n: _conv_then_pool(k, n),
    "pool_then_conv": lambda k, h, w, n: nn.Sequential(nn.AdaptiveAvgPool2d(1), known(nn.Conv2d(k, n, 1), "bias"), nn.Flatten()),
    "mlp": lambda k, h, w, n: Head(_mean, nn.Sequential(linear(k, 5), activation("relu"), linear(5, n))),
    "mlp_norm": lambda k, h, w, n: Head(_mean, nn.Sequential(linear(k, 5), known(nn.BatchNorm1d(5), "linear"), linear(5, n))),
    "layer_norm": lambda k, h, w, n: Head(_mean, nn.Sequential(nn.LayerNorm(k), linear(k, n))),
    "cosine": lambda k, h, w, n: Head(_mean, linear(k, n, False), normalised=True),
    "maximum": lambda k, h, w, n: Head(lambda x: x.amax((2, 3)), linear(k, n)),
    "summed": lambda k, h, w, n: Summed(Head(_mean, linear(k, n)), nn.Sequential(nn.Flatten(), linear(k * h * w, n))),
    "tokens": lambda k, h, w, n: Head(
        with_axis(nn.Sequential(Function(lambda x: x.flatten(2).transpose(1, 2)), nn.LayerNorm(k)), f"tokens {h} {w}"),
        Head(lambda x: x.mean(1), linear(k, n)),
    ),
    "channels_last": lambda k, h, w, n: _last(k, n),
}
