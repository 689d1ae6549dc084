"""Wrappers around a network that compute what the network inside computes."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

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


def run_eagerly() -> AbstractContextManager[None]:
    """Return a context in which nothing compiled by `torch.compile` runs.

    Without an import of the compiler elsewhere nothing can be compiled: it is not imported here, which would take a second.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
