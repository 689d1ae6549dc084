"""Norms of the grammar by name."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from tests.fuzz.parts import Factory, Function, known, with_axis


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
