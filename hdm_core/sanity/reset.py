"""New random weights for a layer."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

# Buffers of batch normalisation in a module of another type, such as those of an exported program, as they are before a training.
_STATISTICS = {"running_mean": 0.0, "running_var": 1.0}


def reset_layer(layer: nn.Module, seed: int) -> None:
    """Draw new weights for a layer, in place.

    A layer without submodules is initialised by its own `reset_parameters`, which also resets the statistics of batch normalisation.
    Weights of other layers are drawn from a normal distribution with the mean and standard deviation of the weights that they replace;
    those that are all equal, such as biases of 0, stay. Numbers are drawn on the CPU, so that they do not depend on the device.

    Args:
        layer: only its own weights change, not those of its submodules.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if not any(True for _ in layer.children()) and callable(getattr(layer, "reset_parameters", None)):
            fresh: Any = copy.deepcopy(layer).cpu()
            try:
                fresh.reset_parameters()
            except Exception:  # of a user's layer, such as one that takes arguments
                _draw_like_weights(layer)
            else:
                for tensor, new in zip(_state(layer), _state(fresh), strict=True):
                    tensor.copy_(new)
        else:
            _draw_like_weights(layer)


def _state(layer: nn.Module) -> list[torch.Tensor]:
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


def _draw_like_weights(layer: nn.Module) -> None:
    for weights in layer.parameters(recurse=False):
        if weights.is_floating_point():
            values = weights.float()
            noise = torch.randn(weights.shape).to(weights.device)
            weights.copy_(values.mean() + values.std(correction=0) * noise)
    for name, buffer in layer.named_buffers(recurse=False):
        if name in _STATISTICS:
            buffer.fill_(_STATISTICS[name])
