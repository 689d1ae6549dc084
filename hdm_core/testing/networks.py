"""Tiny seeded networks and images, and snapshots of networks."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


def smooth_network(classes: int = 3, channels: int = 3, seed: int = 0) -> nn.Sequential:
    """Build a network without kinks, in the default dtype.

    Its logits spread over several units.
    """
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
            for layer, factor in ((0, 3), (2, 3), (-1, 6)):
                next(network[layer].parameters()).mul_(factor)
    return network.eval()


def normalised_network(classes: int = 3, seed: int = 0, inplace: bool = True) -> nn.Sequential:
    """Build a network with batch normalisation, ReLU in place and dropout.

    The batch normalisation has random statistics; the network is in training mode.
    """
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
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2.0)
    return network.train()


def mixed_state_network(classes: int = 3, seed: int = 0) -> nn.Sequential:
    """Build a `normalised_network` of mixed state.

    One part is in evaluation mode and one parameter frozen: a state that is easily lost.
    """
    network = normalised_network(classes, seed)
    network.get_submodule("features").eval()
    network.get_submodule("conv").requires_grad_(False)
    return network


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Dropout(0.5), nn.Linear(2 * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        mixed: Tensor = tokens + self.mlp(self.norm2(tokens))
        return mixed


class AttentionNetwork(nn.Module):
    """A vision transformer without kinks, for images of any size.

    It has patches of 4 x 4 pixels, a class token, and no positions.
    """

    def __init__(self, classes: int = 3, channels: int = 3, blocks: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, 8, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.Sequential(*(_Block(8, 2) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the class token."""
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), tokens], 1)
        logits: Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def attention_network(classes: int = 3, channels: int = 3, seed: int = 0) -> AttentionNetwork:
    """Build a vision transformer in the default dtype.

    Its logits spread over several units.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AttentionNetwork(classes, channels)
        with torch.no_grad():
            for parameters, factor in ((network.patches, 3), (network.head, 6)):
                next(parameters.parameters()).mul_(factor)
            for block in network.blocks:
                for parameter in block.get_submodule("attention").parameters():
                    parameter.mul_(2)
    return network.eval()


def mixed_state_attention_network(classes: int = 3, seed: int = 0) -> AttentionNetwork:
    """Build an `attention_network` of mixed state, as `mixed_state_network` is."""
    network = attention_network(classes, seed=seed).train()
    network.get_submodule("blocks.0").eval()
    network.get_submodule("patches").requires_grad_(False)
    return network


class Untraceable(nn.Module):
    """A network that torch.fx cannot trace: its control flow depends on the data."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Apply the network, after a test that tracing cannot decide."""
        if images.shape[0] < 0:
            raise AssertionError("no batch is that small")
        logits: Tensor = self.network(images)
        return logits


class SeveralOutputs(nn.Module):
    """A network that returns its logits in a tuple, a dict or a list of two heads.

    Args:
        form: "tuple" and "dict" have one output that can be logits, "heads" has two, the second of which is the network's.
    """

    def __init__(self, network: nn.Module, form: str) -> None:
        super().__init__()
        self.network = network
        self.form = form

    def forward(self, images: Tensor) -> Any:
        """Apply the network; return its logits beside another output."""
        logits = self.network(images)
        if self.form == "heads":
            return {"heads": [images.mean((2, 3)), logits]}
        return (images, logits) if self.form == "tuple" else {"aux": images.mean((2, 3)), "logits": logits}


class InterruptionError(Exception):
    """The exception of `FailingNetwork`."""


class FailingNetwork(Untraceable):
    """A network that counts its calls and raises in the n-th.

    It is untraceable, so that no call is missed.
    """

    def __init__(self, network: nn.Module, at: int | None = None) -> None:
        super().__init__(network)
        self.at = at
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        """Apply the network; raise InterruptionError in call number `at`."""
        logits = super().forward(images)
        self.calls += 1
        if self.calls == self.at:
            raise InterruptionError
        return logits


def sample_images(batch: int = 3, height: int = 16, width: int | None = None, channels: int = 3, seed: int = 0) -> Tensor:
    """Return seeded images: a bright blob on noise, at another place in each.

    They have the default dtype.
    """
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


def snapshot(network: nn.Module) -> dict[str, Any]:
    """Return all of a network that an explanation could change.

    `assert_unchanged` compares it.
    """
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs")
    return {
        "training": {name: module.training for name, module in network.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in network.named_parameters()},
        "grad": {name: parameter.grad for name, parameter in network.named_parameters()},
        "hooks": {name: [len(getattr(module, hook)) for hook in hooks] for name, module in network.named_modules()},
        "modules": {name: type(module) for name, module in network.named_modules()},
        "state": copy.deepcopy(network.state_dict()),
    }


def assert_unchanged(network: nn.Module, before: dict[str, Any]) -> None:
    """Fail if modes, gradients, hooks, modules or weights differ from a `snapshot`."""
    after, earlier = snapshot(network), dict(before)
    state, earlier_state = after.pop("state"), earlier.pop("state")
    assert after == earlier
    assert list(state) == list(earlier_state)
    for name, tensor in earlier_state.items():
        assert torch.equal(state[name], tensor), name
