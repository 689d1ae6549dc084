"""MobileNetV2 whose last blocks are trained on photographs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

from benchmarks.audit.marks import SIDE
from benchmarks.audit.photographs import Photograph
from hdm_core import Preprocess
from hdm_core.sources.torchvision import load_state

PREPROCESS = Preprocess(resize=SIDE, crop=SIDE)

# Blocks before this one keep their ImageNet weights, so that their output is computed once: 15 of 20 ms per image and epoch on one core.
_FRONT = 14
_BATCH = 16


def tensors(photographs: Sequence[Photograph]) -> Tensor:
    """Return photographs as a network takes them, (N, 3, SIDE, SIDE)."""
    return torch.stack([PREPROCESS(photograph.image) for photograph in photographs])


def train(photographs: Sequence[Photograph], classes: Sequence[str], seed: int, epochs: int) -> tuple[nn.Module, float]:
    """Train MobileNetV2 from ImageNet weights; return it and its accuracy.

    The last five blocks and a new linear layer are trained with AdamW and a one-cycle schedule (largest rate 5e-4); batch normalisation
    keeps its running means.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torchvision.models.mobilenet_v2(weights=None)
        network.load_state_dict(load_state(MobileNet_V2_Weights.IMAGENET1K_V1))
        network.classifier[1] = nn.Linear(network.last_channel, len(classes))
        network.eval()
        labels = torch.tensor([classes.index(photograph.class_name) for photograph in photographs])
        front, back = network.features[:_FRONT], network.features[_FRONT:]
        with torch.no_grad():
            before = torch.cat([front(part) for part in torch.split(tensors(photographs), _BATCH)])

        def logits(part: Tensor) -> Tensor:
            result: Tensor = network.classifier(back(part).mean((2, 3)))
            return result

        parameters = [*back.parameters(), *network.classifier.parameters()]
        optimiser = torch.optim.AdamW(parameters, 5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-4, total_steps=epochs * -(-len(labels) // _BATCH))
        for _ in range(epochs):
            for part in torch.split(torch.randperm(len(labels)), _BATCH):
                optimiser.zero_grad()
                torch.autograd.backward(F.cross_entropy(logits(before[part]), labels[part]))
                optimiser.step()
                schedule.step()
        with torch.no_grad():
            right = torch.cat([logits(part).argmax(1) for part in torch.split(before, _BATCH)]) == labels
    return network, float(right.double().mean())
