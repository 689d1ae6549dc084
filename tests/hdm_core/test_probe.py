"""The batch size that a worker chooses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess
from hdm_core.probe import probe
from tests.support.tiny_networks import assert_unchanged, smooth, snapshot


class Small(nn.Module):
    """Network that runs out of memory beyond `images` images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.network, self.images = smooth(), images

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[0] > self.images:
            raise torch.OutOfMemoryError("the images do not fit")
        return self.network(images)


def test_a_candidate_is_chosen_and_a_pass_takes_longer_than_a_forward_pass() -> None:
    found = probe(Classifier.from_module(smooth()), 32, [2, 4, 8])
    assert found.batch in {2, 4, 8}
    assert found.seconds_per_pass > found.seconds_per_forward > 0
    assert found.seconds_per_forward == found.seconds_per_float32_forward, "on a CPU both are in float32"


def test_images_have_the_networks_size_and_channels() -> None:
    shapes = SimpleNamespace(seen=set())

    class Grey(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            shapes.seen.add(tuple(images.shape[1:]))
            return images.flatten(1)[:, :3]

    classifier = Classifier.from_module(Grey(), Preprocess((16, 20), None, (0.5,), (0.5,)))
    assert probe(classifier, (16, 20), [2]).batch == 2
    assert shapes.seen == {(1, 16, 20)}


def test_a_batch_that_does_not_fit_is_not_chosen() -> None:
    assert probe(Classifier.from_module(Small(4)), 16, [4, 8, 16]).batch == 4


def test_a_smallest_batch_that_does_not_fit_is_an_error_and_the_network_is_restored() -> None:
    network = Small(1).train()
    before = snapshot(network)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        probe(Classifier.from_module(network), 16, [4, 8])
    assert str(caught.value) == (
        "Small with images of 16 x 16 does not fit into the free memory of cpu: use fewer workers per GPU, or smaller images"
    )
    assert_unchanged(network, before)
