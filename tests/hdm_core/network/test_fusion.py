"""Fused copies: what is fused, what is not, and that the copy is right either way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from hdm_core.network.folding import fold_network
from hdm_core.network.fusion import UnfoldableError, fused_copy
from tests.support.tiny_networks import assert_unchanged, pictures, snapshot


class SubclassedNorm(nn.BatchNorm2d):
    """Batch normalisation with an activation, as timm has it."""

    def forward(self, features: Tensor) -> Tensor:
        return F.gelu(super().forward(features))


class SubclassedConv(nn.Conv2d):
    """Convolution that standardises its weights."""

    def forward(self, features: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) * 3
        return F.conv2d(features, weight, self.bias, padding=self.padding)


class Block(nn.Module):
    """A convolution and a batch normalisation with random statistics, and a head; `forward` differs by kind."""

    def __init__(self, conv: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = conv or nn.Conv2d(3, 3, 3, padding=1)
            self.other = nn.Conv2d(3, 3, 3, padding=1)
            self.norm = norm or nn.BatchNorm2d(3)
            self.head = nn.Linear(3, 4)
            nn.init.normal_(self.head.weight, std=3)
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    if module.running_mean is not None and module.running_var is not None:
                        module.running_mean.normal_(0, 2)
                        module.running_var.uniform_(0.2, 4)
                    if module.affine:
                        nn.init.uniform_(module.weight, 0.5, 2)
                        nn.init.normal_(module.bias)

    def classify(self, features: Tensor) -> Tensor:
        return self.head(F.softplus(features).flatten(2).mean(2))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.norm(self.conv(images)))


def kind(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[], Block]:
    return lambda: type("Kind", (Block,), {"forward": lambda self, images: self.classify(forward(self, images))})()


def norm_in_three_dimensions(self: Any, images: Tensor) -> Tensor:
    return self.norm(self.conv(images)[:, :, None])[:, :, 0]


def without_gradient(self: Any, images: Tensor) -> Tensor:
    features = self.norm(self.conv(images))
    with torch.no_grad():
        gate = torch.sigmoid(self.other(images))
    return features * gate


class Straight(torch.autograd.Function):
    """Rounding whose gradient is that of the identity."""

    @staticmethod
    def forward(_ctx: Any, features: Tensor) -> Tensor:
        return (features * 4).round() / 4

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def keeps_its_features(self: Any, images: Tensor) -> Tensor:
    self.features = self.norm(self.conv(images))
    return self.features


def hooked() -> Block:
    network = Block()
    network.conv.register_forward_hook(lambda _module, _inputs, output: output * 2)
    return network


def gradient_hooked() -> Block:
    network = Block()
    network.norm.register_full_backward_hook(lambda _module, gradients, _outputs: tuple(gradient * 3 for gradient in gradients))
    return network


def overridden() -> Block:
    network = Block()
    norm = network.norm
    network.norm.forward = lambda features: features * 2 + norm.bias[:, None, None]  # type: ignore[method-assign, assignment]
    return network


def tied() -> Block:
    network = Block()
    network.other.weight = network.conv.weight
    return network


def called_by_two_names() -> Block:
    network = Block()
    network.other = network.conv
    return network


# Network, and the number of batch normalisations that its copy has left.
KINDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "plain": (Block, 0),
    "no affine": (lambda: Block(norm=nn.BatchNorm2d(3, affine=False)), 0),
    "no bias": (lambda: Block(nn.Conv2d(3, 3, 3, bias=False)), 0),
    "groups and stride": (lambda: Block(nn.Conv2d(3, 3, 3, stride=2, groups=3)), 0),
    "reflection": (lambda: Block(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")), 0),
    "no statistics": (lambda: Block(norm=nn.BatchNorm2d(3, track_running_stats=False)), 1),
    "a subclassed norm": (lambda: Block(norm=SubclassedNorm(3)), 1),
    "a subclassed convolution": (lambda: Block(SubclassedConv(3, 3, 3, padding=1)), 1),
    "a transposed convolution": (lambda: Block(nn.ConvTranspose2d(3, 3, 3)), 1),
    "instance norm": (lambda: Block(norm=nn.InstanceNorm2d(3)), 0),
    "synchronised norm": (lambda: Block(norm=nn.SyncBatchNorm(3)), 1),
    "a convolution between": (kind(lambda self, images: self.norm(self.other(self.conv(images)))), 0),
    "a convolution called twice": (kind(lambda self, images: self.norm(self.conv(self.conv(images)))), 1),
    "a norm shared by two": (kind(lambda self, images: self.norm(self.conv(images)) + self.norm(self.other(images))), 1),
    "an output used twice": (kind(lambda self, images: (out := self.conv(images)) + self.norm(out)), 1),
    "two names for one convolution": (called_by_two_names, 0),
    "two names, both called": (lambda: _both_names_called(), 1),
    "tied weights": (tied, 0),
    "weights read by another layer": (kind(lambda self, images: self.norm(self.conv(images)) + self.conv.weight.mean()), 1),
    "statistics read by another layer": (kind(lambda self, images: self.norm(self.conv(images)) + self.norm.weight[:, None, None]), 1),
    "a region without gradient": (kind(without_gradient), 0),
    "a detached path": (kind(lambda self, images: self.norm(self.conv(images)) * self.other(images).detach().sigmoid()), 0),
    "a straight-through estimator": (kind(lambda self, images: Straight.apply(self.norm(self.conv(images)))), 0),
    "a change in place": (kind(lambda self, images: self.norm(self.conv(images)).mul_(2)), 0),
    "a change in place of the convolution": (kind(lambda self, images: self.norm(self.conv(images).mul_(2))), 1),
    "features that are stored": (kind(keeps_its_features), 0),
    "functional norm": (
        kind(lambda self, images: F.batch_norm(self.conv(images), self.norm.running_mean, self.norm.running_var, self.norm.weight)),
        1,
    ),
    "a parametrised convolution": (lambda: Block(parametrizations.weight_norm(nn.Conv2d(3, 3, 3))), 1),
    "spectral norm": (lambda: Block(parametrizations.spectral_norm(nn.Conv2d(3, 3, 3))), 1),
    "weights set by a hook": (lambda: Block(weight_norm(nn.Conv2d(3, 3, 3))), 1),
    "a scripted part": (lambda: scripted(), 0),
    "a forward hook": (hooked, 1),
    "a backward hook": (gradient_hooked, 1),
    "an even mode": (kind(lambda self, images: self.norm(self.conv(images)) * (2 if self.training else 1)), 0),
}


def _both_names_called() -> nn.Module:
    network = kind(lambda self, images: self.norm(self.other(self.conv(images))))()
    network.other = network.conv
    return network


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*torch.jit")
def test_a_copy_answers_as_the_network_whatever_is_fused(name: str) -> None:
    make, norms = KINDS[name]
    network, images = make().eval(), pictures(5, 16)
    before = snapshot(network)
    folded = fold_network(network, images[:1])
    assert folded.reason is None
    assert sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in folded.network.modules()) == norms
    for batch in (1, 2, 5):
        found, expected = images[:batch].clone().requires_grad_(), images[:batch].clone().requires_grad_()
        logits, wanted = folded.network(found), network(expected)
        torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            torch.autograd.grad(logits[:, 2].sum(), found)[0], torch.autograd.grad(wanted[:, 2].sum(), expected)[0], rtol=1e-3, atol=1e-5
        )
    with torch.no_grad():
        torch.testing.assert_close(folded.network(images), network(images), rtol=1e-4, atol=1e-4)
    assert_unchanged(network, before)


class Positions(nn.Module):
    """Network whose forward makes a grid of the image's size and counts the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.arange(images.size(-1)).float() / images.size(-1)
        return self.block(images + rows) / images.size(0)


def test_sizes_are_not_frozen_to_those_of_the_first_images() -> None:
    network = Positions().eval()
    folded = fold_network(network, pictures(1, 16))
    for batch, side in ((1, 16), (3, 16), (2, 24)):
        torch.testing.assert_close(folded.network(pictures(batch, side)), network(pictures(batch, side)), rtol=1e-4, atol=1e-4)


class Caching(Block):
    """Network whose first forward stores what later ones use."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        if "bias" not in self.cache:
            self.cache["bias"] = torch.ones(3, 1, 1)
        return self.classify(self.norm(self.conv(images)) + self.cache["bias"])


def test_a_network_that_fills_a_cache_is_folded() -> None:
    network = Caching().eval()
    folded = fold_network(network, pictures(1))
    assert folded.reason is None
    assert fold_network(network, pictures(1)).network is folded.network


class Uncopyable(Block):
    """Network that cannot be copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Uncopyable:
        raise RuntimeError("no copies\nof this one")


class Itself(Block):
    """Network whose copy is the network itself."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Itself:
        return self


class Counting(Block):
    """Network that counts its calls in a buffer, or in a number."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.buffer, self.count = buffer, 0
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        if self.buffer:
            self.calls.add_(1)
        else:
            self.count += 1
        return super().forward(images)


def closed_over() -> nn.Module:
    network = kind(lambda self, images: self.run(images))()
    network.run = lambda images: network.norm(network.conv(images))
    return network


def scripted() -> nn.Module:
    network = Block()
    network.norm = torch.jit.script(nn.Sequential(network.norm, nn.Softplus()))
    return network


# Network, and what the reason begins with.
UNFOLDABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "no copy": (lambda: Uncopyable(), "torch.fx cannot trace it (RuntimeError: no copies of this one)"),
    "no true copy": (lambda: Itself(), "its copy refers to the network itself"),
    "a closure over layers": (closed_over, "torch.fx cannot trace it (NameError: module is not installed as a submodule)"),
    "a forward that holds a layer": (overridden, "its copy refers to the network itself"),
    "a count in a buffer": (lambda: Counting(True), "its forward changes its own parameters, buffers or attributes"),
    "a count in a number": (lambda: Counting(False), "its forward changes its own parameters, buffers or attributes"),
    "a scripted network": (lambda: torch.jit.trace(Block().eval(), pictures(2)), "torch.fx cannot trace it"),
    "a compiled network": (lambda: torch.compile(Block(), backend="eager"), "torch.fx cannot trace it"),
    "a list of results with graphs": (lambda: _with_graphs(), "torch.fx cannot trace it (RuntimeError: Only Tensors created explicitly"),
    "control flow": (kind(lambda self, images: self.conv(images) if images.sum() > 0 else self.norm(images)), "torch.fx cannot trace it"),
}


def _with_graphs() -> nn.Module:
    network = Block()
    network.seen = [network.conv(pictures(1))]
    return network


@pytest.mark.parametrize("name", UNFOLDABLE)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_network_without_a_right_copy_is_used_as_it_is(name: str) -> None:
    make, reason = UNFOLDABLE[name]
    network = make().eval()
    before = snapshot(network) if "count" not in name and "scripted" not in name else None
    folded = fold_network(network, pictures(1))
    assert folded.network is network
    assert str(folded.reason).startswith(reason)
    assert "\n" not in str(folded.reason)
    if before is not None:
        assert_unchanged(network, before)


def test_tensors_of_five_dimensions_keep_their_layout() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.deep, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv3d(1, 4, 3, padding=1), nn.Linear(4, 3)
            self.register_buffer("mask", torch.ones(1, 2, 1, 3, 3))

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.deep(self.flat(images).relu()[:, None]).mean((2, 3, 4)) * self.mask.mean())

    network = Deep().eval()
    folded = fold_network(network, pictures(1))
    assert folded.reason is None
    torch.testing.assert_close(folded.network(pictures(3)), network(pictures(3)), rtol=1e-4, atol=1e-5)


def test_a_trace_leaves_no_symbols_in_the_network() -> None:
    network = kind(keeps_its_features)().eval()
    copy = fused_copy(network)
    assert not hasattr(network, "features")
    assert not hasattr(copy, "features")


def test_the_reason_is_an_exception_of_its_own() -> None:
    with pytest.raises(UnfoldableError, match="no copies"):
        fused_copy(Uncopyable().eval())
