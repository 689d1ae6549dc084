"""A small network that learns the rule of the planted pictures in seconds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.planted.images import EVERY_KIND, NEEDS, PlantedImages, plant

WIDTHS = (12, 16, 24, 32)
STEPS = 600
_BATCH = 60


def build_network(seed: int) -> nn.Sequential:
    """Four convolutions with ReLU, three poolings between them (the last maps are 8 x 8), their mean and a linear layer; random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False)):
            convolution = nn.Conv2d(before, after, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            layers += [*([nn.MaxPool2d(2)] if place else []), convolution, nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], len(NEEDS)))


def train(seed: int, steps: int = STEPS) -> nn.Sequential:
    """The network after so many batches of fresh pictures of every kind; on one machine the same seed gives the same weights."""
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
    """Whether the network keeps the rule on a picture and on all it becomes when one or both patches are taken out, (N,) bool."""
    kept = torch.ones(len(planted), dtype=torch.bool)
    for patches in ((), (0,), (1,), (0, 1)):
        images, labels = planted.without(patches)
        kept &= model(images).argmax(1) == labels
    return kept
