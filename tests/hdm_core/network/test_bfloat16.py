"""The copy in bfloat16: rounded as by autocast, without its casts, and refused where it is worse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.network.bfloat16 import Bfloat16Network, bfloat16_copy
from hdm_core.network.folding import fold_network, is_folded
from hdm_core.network.linear import RowwiseLinear
from hdm_core.network.logits import class_logits
from hdm_core.testing.families import transformer
from hdm_core.testing.networks import normalised_network
from tests.support.tiny_networks import pictures, smooth


def folded(network: nn.Module, precision: str = "float32") -> nn.Module:
    return fold_network(network.eval().requires_grad_(False), pictures(1, 16), precision).network


@torch.no_grad()
def by_autocast(network: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        return class_logits(network, images)


@pytest.mark.parametrize("make", [smooth, normalised_network])
def test_a_convolutional_network_has_the_bits_of_autocast(make: type[nn.Module]) -> None:
    network, images = make(), pictures(3, 16)
    expected = by_autocast(folded(network), images)
    with torch.no_grad():
        found = class_logits(folded(network, "bfloat16"), images)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_gradients_and_maps_have_the_bits_of_autocast() -> None:
    network, images = normalised_network().eval().requires_grad_(False), pictures(2, 16)
    gradients = []
    for precision in ("float32", "bfloat16"):
        shown = images.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            gradients += torch.autograd.grad(class_logits(folded(network, precision), shown)[:, 1].sum(), shown)
    assert torch.equal(*gradients)


def test_weights_are_cast_and_the_last_layer_is_not() -> None:
    original = normalised_network()
    copy = folded(original, "bfloat16")
    assert isinstance(copy, Bfloat16Network)
    types = {name.rpartition(".linear.")[1] or "other": tensor.dtype for name, tensor in copy.named_parameters()}
    assert types == {"other": torch.bfloat16, ".linear.": torch.float32}
    assert {tensor.dtype for tensor in original.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in folded(original).parameters()} == {torch.float32}


def test_linear_layers_of_tokens_are_cast() -> None:
    network = transformer().eval().requires_grad_(False)
    copy = fold_network(network, pictures(1, 32), "bfloat16").network
    assert isinstance(copy, Bfloat16Network)
    linear = {module.linear.weight.dtype for module in copy.modules() if isinstance(module, RowwiseLinear)}
    assert linear == {torch.float32, torch.bfloat16}


def test_the_copy_is_made_once_and_again_for_other_weights() -> None:
    network = normalised_network()
    first = folded(network, "bfloat16")
    assert folded(network, "bfloat16") is first
    assert is_folded(first)
    assert is_folded(folded(network))
    with torch.no_grad():
        next(network.parameters()).neg_()
    second = folded(network, "bfloat16")
    assert second is not first
    assert torch.equal(class_logits(second, pictures(2, 16)), by_autocast(folded(network), pictures(2, 16)))


class Offset(nn.Module):
    """Network with an offset of 256, which autocast adds in float32, as it is a parameter, and the copy in steps of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3)
        self.offset = nn.Parameter(torch.full((8,), 256.0))
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images).mean((2, 3)) + self.offset - 256.0)
        return out


class MixedTypes(nn.Module):
    """Network with a matrix that is no parameter, and so stays in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = smooth()
        self.mixing = torch.eye(3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = torch.einsum("cd,bdhw->bchw", self.mixing, images)
        logits: Tensor = self.inner(out)
        return logits


@pytest.mark.parametrize("make", [Offset, MixedTypes])
def test_autocast_remains_where_the_copy_is_worse_or_fails(make: type[nn.Module]) -> None:
    network = make()
    in_float32 = folded(network)
    assert bfloat16_copy(in_float32, pictures(8, 16)) is None
    assert folded(network, "bfloat16") is in_float32
    assert (
        explain(Classifier.from_module(network), pictures(2, 16), "dm", sizes=(4,), ratios=(2,), steps=2, precision="bfloat16")
        .maps.isfinite()
        .all()
    )
