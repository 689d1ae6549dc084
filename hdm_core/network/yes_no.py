"""Both answers of a yes/no network, as two classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn


@fx.wrap
def both_answers(logits: Any) -> Any:
    """Return -z and z of a single logit z, (B, 2); all other outputs unchanged.

    The sigmoid of z is the probability of yes, and that of -z the probability of no.
    """
    if isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] == 1:
        return torch.cat([-logits, logits], 1)
    return logits


class YesNo(nn.Module):
    """A network whose single logit becomes two: no, class 0, and yes, class 1.

    A network with several logits answers as it is. Layers and attributes are found under the network's own names.

    Attributes:
        network: the network, not a copy.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, images: Tensor) -> Any:
        """Return the logits (B, 2), or the network's output where it is no single logit."""
        return both_answers(self.network(images))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the network."""
        parts = self.__dict__.get("_modules", {})
        if name in parts:
            return parts[name]
        if "network" in parts:
            return getattr(parts["network"], name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
