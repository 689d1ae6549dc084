"""Folding: the copy of a network that masks are optimised on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx._symbolic_trace import is_fx_tracing

from hdm_core import Classifier
from hdm_core.network.folding import RowwiseLinear, fold
from tests.support.tiny_networks import Pair, Untraceable, assert_unchanged, normalised, pictures, smooth, snapshot


def test_a_row_of_the_head_has_the_same_bits_in_every_batch() -> None:
    torch.manual_seed(0)
    linear, features = nn.Linear(130, 7), torch.randn(41, 130)
    head = RowwiseLinear(linear)
    with torch.no_grad():
        whole = head(features)
        torch.testing.assert_close(whole, linear(features))
        for rows in range(1, 41):
            assert torch.equal(head(features[:rows]), whole[:rows])
        assert torch.equal(head(features.flip(0)), whole.flip(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_head_stays_in_single_precision_under_autocast(dtype: torch.dtype) -> None:
    linear, features = nn.Linear(8, 3), torch.randn(4, 8).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = RowwiseLinear(linear)(features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.linear(features.float(), linear.weight, linear.bias))


def test_a_linear_layer_on_tokens_is_not_changed() -> None:
    linear, tokens = nn.Linear(8, 3), torch.randn(2, 5, 8)
    assert torch.equal(RowwiseLinear(linear)(tokens), linear(tokens))


def test_the_copy_has_the_same_logits_and_the_network_is_not_changed() -> None:
    network, images = normalised().eval(), pictures(3, 32)
    before, seen = snapshot(network), images.clone()
    copy = fold(network, images[:1])
    assert copy is not network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    torch.testing.assert_close(copy(images), network(images), rtol=1e-4, atol=1e-4)
    assert torch.equal(images, seen)
    assert_unchanged(network, before)


def test_a_network_that_cannot_be_traced_is_used_as_it_is() -> None:
    network = Untraceable(smooth())
    assert fold(network, pictures(1)) is network


class Surprising(nn.Module):
    """Network that computes something else while it is traced, as some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = smooth()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) + (1 if is_fx_tracing() else 0)


def test_a_copy_with_different_logits_is_not_used() -> None:
    network = Surprising()
    assert fold(network, pictures(1)) is network


def test_a_network_with_dropout_is_folded_in_evaluation_mode_and_restored() -> None:
    classifier, images = Classifier.from_module(normalised()), pictures(2, 32)
    before = snapshot(classifier.module)
    with classifier.folded(images[:1]) as network:
        found = network(images)
        assert torch.equal(network(images), found)
    assert_unchanged(classifier.module, before)
    torch.testing.assert_close(found, classifier.module.eval()(images), rtol=1e-4, atol=1e-4)


def test_a_network_in_training_mode_is_not_folded() -> None:
    network = normalised()
    before = snapshot(network)
    assert fold(network, pictures(1, 32)) is network
    assert network.training
    assert before["training"] == snapshot(network)["training"]


def test_logits_that_are_no_tensor_are_refused() -> None:
    with pytest.raises(TypeError) as caught:
        fold(Pair(smooth()), pictures(1))
    assert str(caught.value) == "the network must return logits (B, classes) for images (1, 3, 16, 16); it returned a tuple"
