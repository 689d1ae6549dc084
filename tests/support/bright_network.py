"""A network that looks for brightness, and photographs with a bright patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

HEIGHT, WIDTH = 320, 256
PATCH = (200, 40, 260, 120)  # top, left, bottom, right of the bright patch in the network's input


class Bright(nn.Module):
    """Network whose first logit grows with brightness above the background."""

    def __init__(self, channels: int, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 8, 8), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, classes)
        with torch.no_grad():
            for parameter in (self.features[0].weight, self.features[2].weight):
                parameter.abs_()
            self.features[0].bias.fill_(-0.2)
            self.head.weight.copy_(0.2 * torch.linspace(1, -1, classes)[:, None].expand(-1, 4))
            self.head.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


def make(channels: int = 3) -> nn.Module:
    """Return the network with seeded weights, for `source: import`."""
    torch.manual_seed(0)
    return Bright(channels).eval()


def photograph(width: int, height: int, channels: int = 1, seed: int = 0, deep: bool = True) -> NDArray[Any]:
    """Return noise with a bright patch, (height, width, channels).

    The patch is where `PATCH` is in the input, if the photograph is resized exactly.
    """
    levels = np.random.default_rng(seed).uniform(0.02, 0.15, (height, width, channels))
    top, left, bottom, right = PATCH
    rows, columns = slice(top * height // HEIGHT, bottom * height // HEIGHT), slice(left * width // WIDTH, right * width // WIDTH)
    levels[rows, columns] += 0.8
    return (levels * 65535).astype(np.uint16) if deep else (levels * 255).astype(np.uint8)
