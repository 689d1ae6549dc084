"""Small network that learns the rule of the planted images in seconds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.planted.images import EVERY_KIND, NEEDS, PlantedImages, plant

WIDTHS = (12, 16, 24, 32)
STEPS = 600
_BATCH = 60


def build_network(seed: int) -> nn.Sequential:
    """Build the network with random weights from a seed.

    Four convolutions with ReLU and three poolings between them (the last maps are 8 x 8), global average pooling, a linear layer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for stage, (before, after) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False)):
            convolution = nn.Conv2d(before, after, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [*([nn.MaxPool2d(2)] if stage else []), convolution, nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], len(NEEDS)))


def train(seed: int, steps: int = STEPS) -> nn.Sequential:
    """Train the network on `steps` batches of new images of every kind.

    On one machine the same seed gives the same weights.
    """
    model, generator = build_network(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for _ in range(steps):
        drawn = [plant(kind, _BATCH // len(EVERY_KIND), generator) for kind in EVERY_KIND]
        loss = F.cross_entropy(model(torch.cat([part.images for part in drawn])), torch.cat([part.labels for part in drawn]))
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def is_correct(model: nn.Module, planted: PlantedImages) -> Tensor:
    """Check that the network follows the rule with and without patches, (N,) bool.

    An image counts if the network is correct on it, without one patch, without the other, and without both.
    """
    correct = torch.ones(len(planted), dtype=torch.bool)
    for patches in ((), (0,), (1,), (0, 1)):
        images, labels = planted.without(patches)
        correct &= model(images).argmax(1) == labels
    return correct
