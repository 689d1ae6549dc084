"""Wrappers of torch around a network: the network inside is explained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
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


class Delegating(nn.Module):
    """Module that has the attributes of its submodule, and computes more."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -self.inner(images)


class Ensemble(nn.DataParallel):
    """Subclass of a wrapper that computes more."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return -super().forward(*inputs)


def test_neither_attributes_nor_a_base_class_make_a_wrapper() -> None:
    for network in (Delegating(torch.compile(normalised())), Delegating(nn.DataParallel(normalised())), Ensemble(normalised())):
        assert Classifier.from_module(network).module is network


def test_the_distributed_wrapper_is_removed_too() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        network = normalised()
        classifier = Classifier.from_module(torch.compile(nn.parallel.DistributedDataParallel(network)))
        assert classifier.module is network
    finally:
        dist.destroy_process_group()


def test_wrappers_inside_a_network_stay() -> None:
    network = nn.Sequential(nn.DataParallel(normalised()), nn.Identity())
    assert Classifier.from_module(network).module is network
