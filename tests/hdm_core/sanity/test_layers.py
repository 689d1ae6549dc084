"""Blocks of layers, and new weights for one of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier
from hdm_core.sanity import LeftOutError, find_blocks
from hdm_core.sanity.reset import reset_layer
from tests.support.tiny_networks import pictures


class HeadFirst(nn.Module):
    """A network that registers its head before its body."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.body = nn.Conv2d(3, 4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).relu().mean((2, 3)))


# Blocks


def test_layers_are_ordered_by_their_first_call_and_the_logits_are_a_block_of_their_own() -> None:
    blocks = find_blocks(Classifier.from_module(HeadFirst()), pictures()[:1], 6)
    assert [block.layers for block in blocks] == [("head",), ("body",), ("unused",)]


def test_layers_are_dealt_out_evenly_to_at_most_so_many_blocks() -> None:
    network = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(8)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    classifier = Classifier.from_module(network)
    assert [block.layers for block in find_blocks(classifier, pictures()[:1], 4)] == [
        ("10",),
        ("7", "6"),
        ("5", "4", "3"),
        ("2", "1", "0"),
    ]
    assert [len(block.layers) for block in find_blocks(classifier, pictures()[:1], 1)] == [9]
    assert [block.name for block in find_blocks(classifier, pictures()[:1], 2)] == ["10", "7 to 0"]


def test_a_projection_that_attention_uses_as_a_tensor_has_the_place_of_the_attention() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 2)
            self.attention = nn.MultiheadAttention(3, 1, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = images.flatten(2).transpose(1, 2)
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))

    blocks = find_blocks(Classifier.from_module(Attention()), pictures()[:1], 6)
    assert [layer for block in blocks for layer in block.layers] == ["head", "attention.out_proj", "attention"]


def test_a_network_without_weights_is_left_out() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(LeftOutError, match="no weights"):
        find_blocks(Classifier.from_module(network), pictures()[:1], 6)


# New weights


def test_a_layer_is_initialised_by_its_own_reset_parameters() -> None:
    layer, other = nn.Linear(5, 4), nn.Linear(5, 4)
    reset_layer(layer, 7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        other.reset_parameters()
    assert torch.equal(layer.weight, other.weight)
    assert torch.equal(layer.bias, other.bias)


def test_batch_normalisation_loses_its_weights_and_statistics() -> None:
    layer = nn.BatchNorm2d(3)
    with torch.no_grad():
        layer.weight.fill_(5)
        layer.running_mean.fill_(2)  # type: ignore[union-attr]
        layer.num_batches_tracked.fill_(9)  # type: ignore[union-attr]
    reset_layer(layer, 0)
    assert layer.weight.tolist() == [1, 1, 1]
    assert layer.running_mean.tolist() == [0, 0, 0]  # type: ignore[union-attr]
    assert int(layer.num_batches_tracked) == 0  # type: ignore[arg-type]


def test_other_weights_are_drawn_with_the_mean_and_deviation_of_those_that_they_replace() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(3 + 0.5 * torch.randn(100, 200, generator=torch.Generator().manual_seed(0)))
            self.bias = nn.Parameter(torch.zeros(4))
            self.child = nn.Linear(2, 2)

    layer = Plain()
    before, child = layer.weight.detach().clone(), copy.deepcopy(layer.child.state_dict())
    reset_layer(layer, 1)
    assert float(layer.weight.detach().mean()) == pytest.approx(3, abs=0.02)
    assert float(layer.weight.detach().std()) == pytest.approx(0.5, abs=0.02)
    assert abs(float(torch.corrcoef(torch.stack([before.flatten(), layer.weight.detach().flatten()]))[0, 1])) < 0.03
    assert layer.bias.tolist() == [0, 0, 0, 0]
    assert all(torch.equal(value, layer.child.state_dict()[name]) for name, value in child.items())


def test_a_reset_that_needs_arguments_falls_back_to_a_normal_distribution() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(6.0))

        def reset_parameters(self, scale: float) -> None:
            raise AssertionError(scale)

    layer = Odd()
    reset_layer(layer, 0)
    assert layer.weight.tolist() != list(range(6))


def test_the_random_state_of_the_process_is_restored() -> None:
    state = torch.get_rng_state()
    reset_layer(nn.Linear(3, 3), 0)
    torch.set_rng_state(state)
    expected = torch.rand(3)
    torch.set_rng_state(state)
    layer = nn.Linear(3, 3)
    torch.set_rng_state(state)
    reset_layer(layer, 1)
    assert torch.equal(torch.rand(3), expected)
