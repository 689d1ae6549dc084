"""Both answers of a yes/no network, as two classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from hdm_core.network.outputs import logits_in
from hdm_core.network.wrappers import NetworkWrapper


@fx.wrap
def both_answers(output: Any) -> Any:
    """Return -z and z of a single logit z, (B, 2); all other outputs unchanged.

    The sigmoid of z is the probability of yes, and that of -z the probability of no.

    Args:
        output: logits, or an output in which `logits_in` finds them.
    """
    logits = logits_in(output)
    return torch.cat([-logits, logits], 1) if logits.ndim == 2 and logits.shape[1] == 1 else output


class YesNo(NetworkWrapper):
    """A network whose single logit becomes two: no, class 0, and yes, class 1.

    A network with several logits answers as it is.
    """

    def forward(self, images: Tensor) -> Any:
        """Return the logits (B, 2), or the network's output where it is no single logit."""
        return both_answers(self.network(images))
