"""torchvision's network families, made small, with random seeded weights.

They are built from torchvision's own classes, with few blocks and channels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.models import ConvNeXt, DenseNet, EfficientNet, MobileNetV2, ResNet, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import MBConvConfig
from torchvision.models.resnet import BasicBlock
from torchvision.models.vgg import VGG

CLASSES = 5


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network in evaluation mode with random batch normalisation statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.2)
                assert module.running_var is not None
                module.running_var.uniform_(0.2, 0.8)
    return network.eval()


def _resnet() -> Any:
    network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
    # Its stages are 64 to 512 channels wide; the last is replaced by a narrow one.
    network.inplanes = 256
    network.layer4 = network._make_layer(BasicBlock, 16, 2)  # noqa: SLF001 - as its constructor does
    network.fc = nn.Linear(16, CLASSES)
    return network


def _mobilenet() -> Any:
    network = MobileNetV2(CLASSES, width_mult=0.25, inverted_residual_setting=[[1, 16, 1, 2], [6, 32, 2, 2]])
    network.features[-1] = type(network.features[-1])(8, 16, kernel_size=1, activation_layer=nn.ReLU6)
    network.classifier[1] = nn.Linear(16, CLASSES)
    return network


def _densenet() -> Any:
    return DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=CLASSES)


def _efficientnet() -> Any:
    blocks = [MBConvConfig(1, 3, 2, 8, 8, 1, 1.0, 1.0), MBConvConfig(4, 3, 2, 8, 8, 2, 1.0, 1.0)]
    return EfficientNet(blocks, dropout=0.2, num_classes=CLASSES, last_channel=16)


def _convnext() -> Any:
    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], layer_scale=0.5, num_classes=CLASSES)


def _vgg() -> Any:
    features = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )
    with torch.device("meta"):  # its classifier of 100 million weights is replaced
        network = VGG(features, num_classes=CLASSES, init_weights=False)
    network.classifier = nn.Sequential(
        nn.Linear(16 * 49, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES)
    )
    return network


def transformer() -> nn.Module:
    """Build a vision transformer for images of 32 x 32, which classifies from tokens."""
    network = seeded(partial(VisionTransformer, 32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=CLASSES))
    nn.init.eye_(next(network.get_submodule("heads.head").parameters()))  # it is initialised to zero
    return network


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": partial(seeded, _resnet),
    "mobilenet": partial(seeded, _mobilenet),
    "densenet": partial(seeded, _densenet),
    "efficientnet": partial(seeded, _efficientnet),
    "convnext": partial(seeded, _convnext),
    "vgg": partial(seeded, _vgg),
}
