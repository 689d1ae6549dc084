"""Wrappers around a network that compute what the network inside computes."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel)


def unwrap(module: nn.Module) -> nn.Module:
    """Return the network inside DataParallel, DDP, AveragedModel and torch.compile.

    The wrappers may be nested in any order. Parameters and buffers are those of the wrapper, not copies. Other modules with one submodule,
    such as a LightningModule, may compute more than their submodule does: they are returned unchanged.
    """
    while True:
        if isinstance(module, _WRAPPERS):
            module = module.module
        elif isinstance(compiled := getattr(module, "_orig_mod", None), nn.Module):  # torch.compile's OptimizedModule
            module = compiled
        else:
            return module
