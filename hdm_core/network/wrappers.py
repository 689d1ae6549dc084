"""Wrappers around a network: those of torch that change nothing, and our own."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

# Of exactly these types: a subclass, or a module that delegates attributes, may compute more. torch.compile's type is known by its name,
# because importing it would import the compiler.
_WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel)
_COMPILED = "OptimizedModule"


def unwrap(module: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DDP, AveragedModel and torch.compile.

    The wrappers may be nested in any order. Parameters and buffers are those of the wrapper, not copies. Other modules with one submodule,
    such as a LightningModule, may compute more than their submodule does: they are returned unchanged.
    """
    while True:
        name = "module" if type(module) in _WRAPPERS else "_orig_mod" if type(module).__name__ == _COMPILED else None
        if name is None:
            return module
        module = module.get_submodule(name)


class NetworkWrapper(nn.Module):
    """Base of our own wrappers, which change the output of a network.

    Attributes that a wrapper does not have are those of the network.

    Attributes:
        network: the network, not a copy.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the network."""
        parts = self.__dict__.get("_modules", {})
        if name in parts:
            return parts[name]
        # Not the network's own way of being copied or pickled: it would be that of this module.
        if "network" in parts and not name.startswith("__"):
            return getattr(parts["network"], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def inner_network(network: nn.Module) -> nn.Module:
    """Return the network as the user gave it, without our own wrappers.

    Layers are found by name in it.
    """
    while isinstance(network, NetworkWrapper):
        network = network.network
    return network


def run_eagerly() -> AbstractContextManager[None]:
    """Return a context in which nothing compiled by `torch.compile` runs.

    Without an import of the compiler elsewhere nothing can be compiled: it is not imported here, which would take a second.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
