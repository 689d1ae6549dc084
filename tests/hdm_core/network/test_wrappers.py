"""Wrappers of torch around a network: the network inside is explained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hdm_core import Classifier, explain
from tests.support.tiny_networks import normalised, pictures

WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "AveragedModel": AveragedModel,
    "compiled DataParallel": lambda network: torch.compile(nn.DataParallel(network)),
    "DataParallel of a compiled one": lambda network: nn.DataParallel(torch.compile(network)),
    "AveragedModel of both": lambda network: AveragedModel(nn.DataParallel(torch.compile(network))),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapped_network_is_the_network_inside(name: str) -> None:
    network = normalised()
    classifier = Classifier.from_module(WRAPPERS[name](network))
    assert type(classifier.module) is type(network)
    assert classifier.name == type(network).__name__
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    if "Averaged" not in name:  # which averages a copy
        assert classifier.module is network
    images = pictures(2)
    for method in ("full_grad", "grad_cam", "gradient"):
        found, expected = (explain(module, images, method).maps for module in (classifier, network))
        assert torch.equal(found, expected)


class Scaled(nn.Module):
    """Network with one submodule, which computes more than that."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.module = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -self.module(images)


def test_a_module_that_computes_more_than_its_submodule_stays() -> None:
    network = Scaled(normalised())
    assert Classifier.from_module(network).module is network
    assert Classifier.from_module(nn.DataParallel(network)).module is network


def test_wrappers_inside_a_network_stay() -> None:
    network = nn.Sequential(nn.DataParallel(normalised()), nn.Identity())
    assert Classifier.from_module(network).module is network
