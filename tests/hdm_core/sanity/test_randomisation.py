"""Blocks of layers, new weights, and the variants of weight randomisation."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, get_method
from hdm_core.sanity import Compute, LeftOutError, Subject, cascading, compare, explain_variant, find_blocks, independent, randomised
from hdm_core.sanity.reset import reset_layer
from hdm_core.sources.exported import Exported
from hdm_core.testing.networks import attention_network
from tests.support.tiny_networks import Constant, assert_unchanged, mixed_state, pictures, smooth, snapshot


def subject_of(network: nn.Module, images: Tensor | None = None) -> Subject:
    images = pictures() if images is None else images
    return Subject(Classifier.from_module(network), images, torch.zeros(len(images), dtype=torch.int64))


class HeadFirst(nn.Module):
    """A network that registers its head before its body."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.body = nn.Conv2d(3, 4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).relu().mean((2, 3)))


class Shared(nn.Module):
    """A network whose copy is the network itself."""

    def __init__(self) -> None:
        super().__init__()
        self.network = smooth()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self


class Uncopyable(Shared):
    """A network that refuses to be copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        raise TypeError("holds a file")


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


# Randomisation


def test_cascading_keeps_the_weights_of_the_blocks_that_are_left_and_the_network_is_not_changed() -> None:
    network = mixed_state()
    before = snapshot(network)
    subject = subject_of(network)
    blocks = find_blocks(subject.classifier, subject.images[:1], 6)
    variants = list(cascading(subject, blocks, 0))
    assert [variant.has_limit for variant in variants] == [False] * (len(blocks) - 1) + [True]
    for count, variant in enumerate(variants, 1):
        changed = {layer for block in blocks[:count] for layer in block.layers}
        for name, weights in variant.classifier.network.named_parameters():
            layer = name.rpartition(".")[0]
            if layer not in changed:
                assert torch.equal(weights, network.get_parameter(name)), (variant.stage, name)
            elif weights.ndim > 1:
                assert not torch.equal(weights, network.get_parameter(name)), (variant.stage, name)
                assert torch.equal(weights, variants[-1].classifier.network.get_parameter(name))
    assert_unchanged(network, before)


def test_independent_randomisation_changes_one_block() -> None:
    subject = subject_of(smooth())
    blocks = find_blocks(subject.classifier, subject.images[:1], 6)
    for block, variant in zip(blocks, independent(subject, blocks, 0), strict=True):
        names = {
            name.rpartition(".")[0]
            for name, weights in variant.classifier.network.named_parameters()
            if not torch.equal(weights, subject.classifier.network.get_parameter(name))
        }
        assert names == set(block.layers)


def test_a_network_of_one_block_has_no_independent_randomisation() -> None:
    subject = subject_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)))
    with pytest.raises(LeftOutError, match="one block"):
        list(independent(subject, find_blocks(subject.classifier, subject.images[:1], 6), 0))


def test_batch_normalisation_of_random_layers_has_the_statistics_of_the_images() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    classifier, images = Classifier.from_module(network.eval()), pictures(3)
    other = randomised(classifier, find_blocks(classifier, images[:1], 6), 0, images).network
    inputs = other.get_submodule("0")(images).detach().transpose(0, 1).flatten(1)
    norm = other.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, inputs.mean(1))
    torch.testing.assert_close(norm.running_var, inputs.var(1))
    assert norm.momentum == 0.3
    assert not norm.training
    assert torch.equal(network.get_buffer("1.running_mean"), torch.zeros(4))


@pytest.mark.parametrize(("network", "reason"), [(Shared(), "shares its weights"), (Uncopyable(), "cannot be copied")])
def test_a_network_that_cannot_be_copied_is_left_out_unchanged(network: nn.Module, reason: str) -> None:
    before = snapshot(network)
    subject = subject_of(network)
    with pytest.raises(LeftOutError, match=reason):
        list(cascading(subject, find_blocks(subject.classifier, subject.images[:1], 6), 0))
    assert_unchanged(network, before)


def test_a_network_that_computes_with_other_weights_than_it_shows_is_left_out() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shown = nn.Linear(2, 2)
            self.hidden = [smooth()]

        def forward(self, images: Tensor) -> Tensor:
            return self.hidden[0](images)

    subject = subject_of(Hidden())
    with pytest.raises(LeftOutError, match="do not change with its weights"):
        list(cascading(subject, find_blocks(subject.classifier, subject.images[:1], 6), 0))


def test_the_gradient_of_a_random_network_is_another_map_and_edges_are_the_same() -> None:
    subject = subject_of(smooth(), pictures(4, 24))
    variants = list(cascading(subject, find_blocks(subject.classifier, subject.images[:1], 6), 0))
    for method, is_same in (("gradient", False), ("edges", True)):
        settings = get_method(method).configure()
        original = explain_variant(subject, method, settings, Compute())
        similarity = compare(original, explain_variant(variants[-1], method, settings, Compute())).spearman
        assert (similarity == 1).all() == is_same


def test_a_transformer_is_randomised_from_its_head_down() -> None:
    subject = subject_of(attention_network().eval(), pictures(2, 16))
    blocks = find_blocks(subject.classifier, subject.images[:1], 6)
    assert len(blocks) == 6
    logits = [variant.classifier.network(subject.images) for variant in cascading(subject, blocks, 0)]
    assert all(each.isfinite().all() for each in logits)
    assert not torch.equal(logits[0], logits[-1])


def test_an_exported_program_is_randomised_by_the_scale_of_its_weights() -> None:
    network = smooth().eval()
    images = pictures(2)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    subject = subject_of(Exported(program), images)
    before = subject.classifier.network(images)
    variants = list(cascading(subject, find_blocks(subject.classifier, images[:1], 6), 0))
    assert not torch.equal(variants[-1].classifier.network(images), before)
    assert torch.equal(subject.classifier.network(images), before)
    settings = get_method("gradient").configure()
    original, other = (explain_variant(each, "gradient", settings, Compute()) for each in (subject, variants[-1]))
    assert (compare(original, other).spearman < 0.99).all()


def test_constant_logits_give_flat_maps_that_are_counted() -> None:
    subject = subject_of(Constant())
    maps = explain_variant(subject, "gradient", get_method("gradient").configure(), Compute())
    assert set(compare(maps, maps).status) == {"flat"}
    assert np.isnan(compare(maps, maps).spearman).all()
