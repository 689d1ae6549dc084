"""Small networks with constructs of well-known families that are hard for attribution methods.

All are piecewise linear.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_(0, 0.5)
    norm.running_var.uniform_(0.5, 2.0)
    return norm


class Residual(nn.Module):
    """ResNet: a shared in-place ReLU, a reused block, an in-place sum, an overlapping max-pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 5, 3, padding=1, bias=False), _norm(5)
        self.conv, self.second = nn.Conv2d(5, 5, 3, padding=1), _norm(5)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.relu(self.first(self.stem(images))))
        for _ in range(2):
            branch = self.second(self.conv(x))
            branch += x
            x = self.relu(branch)
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """DenseNet: functions without modules, one in place on the output of an inner layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), _norm(4)
        self.grow, self.last = nn.Conv2d(4, 3, 3, padding=1, bias=False), _norm(7)
        self.hidden, self.head = nn.Linear(7, 6), nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = torch.cat([x, self.grow(torch.relu(self.norm(x)))], 1)
        features = self.last(x)
        features = F.relu(features, inplace=True)
        x = torch.flatten(F.adaptive_avg_pool2d(features, 1), 1)
        self.hidden(x)  # a call without influence on the output
        return self.head(F.leaky_relu(self.hidden(x), 0.2, True))


class Pooled(nn.Module):
    """VGG and SqueezeNet: functional and adaptive max-pools, consecutive ReLUs, an in-place method."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.ReLU6(), nn.MaxPool2d(2))
        self.conv = nn.Conv2d(6, 6, 3)
        self.head = nn.Linear(24, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv(self.features(images)), 2, stride=1)
        x.relu_()
        return self.head(F.adaptive_max_pool2d(x, 2).flatten(1))


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a network with seeded weights, in evaluation mode and frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval().requires_grad_(False)
