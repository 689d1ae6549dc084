"""Networks that only some methods can explain, and the numbers behind them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.ao.quantization import DeQuantStub, QuantStub, convert, get_default_qconfig, prepare, quantize_dynamic

from hdm_core.testing.networks import sample_images, smooth_network

CLASSES = 5
# The methods that need neither layers nor gradients, and those that need no gradients.
CONTROLS = ("center", "edges", "random_map")
BLACK_BOX = ("rise", "occlusion", *CONTROLS)
FORWARD = ("rise", "score_cam", "ablation_cam", "eigen_cam", "occlusion", *CONTROLS)
# Those that need no layers.
LAYERLESS = (
    *("hdm", "dm", "gradient", "integrated_gradients", "rise", "mask"),
    *("smooth_grad", "input_x_gradient", "occlusion", "expected_gradients", "igos_pp", *CONTROLS),
)


def plain() -> nn.Module:
    return smooth_network(CLASSES).eval()


class Wrapped(nn.Module):
    """Base of networks around a plain one."""

    def __init__(self) -> None:
        super().__init__()
        self.network = plain()


class HeadWithoutGradient(Wrapped):
    """Network that is frozen by torch.no_grad() but for its input."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.network(images)


class Detached(Wrapped):
    """Network that detaches its input."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.detach())


class Rounded(Wrapped):
    """Network that returns its logits with no digits after the point."""

    def forward(self, images: Tensor) -> Tensor:
        return (20 * self.network(images)).round()


class Argmax(Wrapped):
    """Network that returns the number of the class."""

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).argmax(1)


class OneHot(Wrapped):
    """Network that returns 1 for the class and 0 for the others."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot(self.network(images).argmax(1), CLASSES).float()


class OutsideTorch(nn.Module):
    """Function of arrays in place of a session of ONNX Runtime: no module and no gradient of torch inside."""

    def __init__(self, batches: bool = True) -> None:
        super().__init__()
        self._run = lambda array: plain()(torch.from_numpy(array)).detach().numpy()
        self._batches = batches

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 1 and not self._batches:
            raise RuntimeError("Got invalid dimensions for input: index 0 got 4, expected 1")
        return torch.from_numpy(self._run(images.numpy()))


class Quantisable(nn.Module):
    """Network whose layers can be converted to int8."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first, self.relu, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.second(self.relu(self.first(self.quant(images))))
        return self.dequant(self.head(self.pool(maps).flatten(1)))


def quantisable() -> Quantisable:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Quantisable().eval()


def int8() -> nn.Module:
    """Build a network with int8 weights and activations, calibrated on a few images."""
    network = quantisable()
    network.qconfig = get_default_qconfig("x86")
    prepare(network, inplace=True)
    network(sample_images(8, 16))
    return convert(network, inplace=True)


def int8_head() -> nn.Module:
    """Build a network with a linear layer that is quantised on the fly."""
    return quantize_dynamic(copy.deepcopy(plain()), {nn.Linear}, dtype=torch.qint8)


def scripted() -> nn.Module:
    return torch.jit.script(plain())


def frozen() -> nn.Module:
    return torch.jit.freeze(torch.jit.script(plain()))


def half() -> nn.Module:
    return plain().half()


# Network -> the methods that can explain it.
PARTLY: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "int8": (int8, FORWARD),
    "int8 head": (int8_head, FORWARD),
    "scripted": (scripted, LAYERLESS),
    "frozen": (frozen, LAYERLESS),
    "no_grad": (HeadWithoutGradient, FORWARD),
    "outside torch": (OutsideTorch, BLACK_BOX),
}
