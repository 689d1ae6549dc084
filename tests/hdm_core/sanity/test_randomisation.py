"""Variants of weight randomisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, get_method
from hdm_core.sanity import Compute, LeftOutError, Subject, cascading, compare, explain_variant, find_blocks, independent, randomised
from hdm_core.sources.exported import Exported
from hdm_core.testing.networks import attention_network
from tests.support.tiny_networks import Constant, assert_unchanged, mixed_state, pictures, smooth, snapshot


def subject_of(network: nn.Module, images: Tensor | None = None) -> Subject:
    images = pictures() if images is None else images
    return Subject(Classifier.from_module(network), images, torch.zeros(len(images), dtype=torch.int64))


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
