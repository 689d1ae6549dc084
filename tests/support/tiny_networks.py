"""Tiny seeded networks and images, and snapshots of a network's state."""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from torch import Tensor, nn

from hdm_core.network.hooks import forward_to


def smooth(classes: int = 3, channels: int = 3, seed: int = 0) -> nn.Sequential:
    """Build a smooth network whose logits have a wide range, in the default dtype."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1),
            nn.Softplus(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, classes),
        )
        with torch.no_grad():
            network[0].weight.mul_(3)
            network[2].weight.mul_(3)
            network[-1].weight.mul_(6)
    return network.eval()


def normalised(classes: int = 3, seed: int = 0, inplace: bool = True) -> nn.Sequential:
    """Build a network with batch normalisation, in-place ReLU and dropout, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 5, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(5),
                relu=nn.ReLU(inplace=inplace),
                features=nn.Sequential(nn.Conv2d(5, 6, 3, stride=2), nn.BatchNorm2d(6), nn.SiLU()),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                dropout=nn.Dropout(0.5),
                head=nn.Linear(6, classes),
            )
        )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias)
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2.0)
    return network.train()


def mixed_state(classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Build `normalised` with one part in evaluation mode and one frozen parameter."""
    network = normalised(classes, seed)
    network.features.eval()
    network.conv.weight.requires_grad_(False)
    return network


class Linear(nn.Module):
    """Network with logits linear in the pixels: 0 for class 0, w . x + bias for class 1."""

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        score = (images * self.weight).sum((1, 2, 3)) + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


class Constant(nn.Module):
    """Network that processes the image and returns the same logits for all."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.answer = nn.Parameter(torch.linspace(1, 2, classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.answer + 0 * self.conv(images).mean((1, 2, 3))[:, None]


class Untraceable(nn.Module):
    """Network that torch.fx cannot trace, because its control flow depends on the data."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[0] < 0:
            raise AssertionError("no batch is that small")
        return self.network(images)


class InterruptionError(Exception):
    """Exception raised by `Failing`."""


class Failing(Untraceable):
    """Network that raises in the n-th call; untraceable, so that all calls are counted."""

    def __init__(self, network: nn.Module, at: int | None = None) -> None:
        super().__init__(network)
        self.at = at
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        self.calls += 1
        if self.calls == self.at:
            raise InterruptionError
        return logits


class Pair(nn.Module):
    """Network that returns a tuple, as segmentation and detection networks do."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(images), images


def pictures(batch: int = 3, height: int = 16, width: int | None = None, channels: int = 3, seed: int = 0) -> Tensor:
    """Return seeded images of the default dtype: a bright rectangle on noise, at a different place in each."""
    generator = torch.Generator().manual_seed(seed)
    width = width or height
    images = 0.3 * torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)
    for image in images:
        top = int(torch.randint(0, height // 2, (), generator=generator))
        left = int(torch.randint(0, width // 2, (), generator=generator))
        image[:, top : top + height // 3, left : left + width // 3] += 2 * torch.randn(
            channels, 1, 1, generator=generator, dtype=torch.float64
        )
    return images.to(torch.get_default_dtype())


def activations_and_gradients(network: nn.Module, layer: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return a layer's output and the gradient of the target logits, each (B, K, h, w)."""
    answer = forward_to(network, layer, images)
    return answer.activations.detach(), answer.gradients(targets)


def snapshot(network: nn.Module) -> dict[str, object]:
    """Record everything that an explanation could change, for `assert_unchanged`."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs")
    return {
        "training": {name: module.training for name, module in network.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in network.named_parameters()},
        "grad": {name: parameter.grad for name, parameter in network.named_parameters()},
        "hooks": {name: [len(getattr(module, hook)) for hook in hooks] for name, module in network.named_modules()},
        "modules": {name: type(module) for name, module in network.named_modules()},
        "state": copy.deepcopy(network.state_dict()),
    }


def assert_unchanged(network: nn.Module, before: dict[str, object]) -> None:
    after = snapshot(network)
    state, old = after.pop("state"), dict(before)
    kept = old.pop("state")
    assert after == old
    assert list(state) == list(kept)
    for name, tensor in kept.items():
        assert torch.equal(state[name], tensor), name
