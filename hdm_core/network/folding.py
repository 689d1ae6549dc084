"""Copy of a network with the same logits and a faster gradient to the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from hdm_core.device import LAYOUT
from hdm_core.network.convolution import DirectConv2d
from hdm_core.network.logits import class_logits

# Matrix products of different numbers of rows round differently, so all use blocks of this many rows.
_ROWS = 16


class RowwiseLinear(nn.Module):
    """Linear layer whose result for a row does not depend on the number of rows.

    It runs in float32 also under autocast. The mask optimiser divides by the size of a gradient and so magnifies rounding, and in bfloat16
    a logit of 16 has steps of 1/16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, features) to (B, classes); other ranks go to the layer unchanged."""
        if features.ndim != 2:
            out: Tensor = self.linear(features)
            return out
        with torch.autocast(features.device.type, enabled=False):
            rows = len(features)
            blocks = torch.split(F.pad(features.to(self.linear.weight.dtype), (0, 0, 0, -rows % _ROWS)), _ROWS)
            return torch.cat([F.linear(block, self.linear.weight, self.linear.bias) for block in blocks])[:rows]


def fold(network: nn.Module, images: Tensor) -> nn.Module:
    """Fold batch normalisation into convolutions; freeze weights, channels last.

    The network itself is returned if torch.fx cannot trace it, or if the logits of its copy differ on `images` (B, C, H, W).
    """
    try:
        copy = fuse(network)
    except Exception:  # tracing runs the user's forward on symbols: any exception means "not traceable"
        return network
    for name, module in list(copy.named_modules()):
        if type(module) is nn.Linear:
            copy.set_submodule(name, RowwiseLinear(module))
        elif DirectConv2d.fits(module):
            copy.set_submodule(name, DirectConv2d(module))
    copy = copy.eval().requires_grad_(False).to(memory_format=LAYOUT)
    probe = images.nan_to_num(0, 0, 0)  # with NaN logits every copy would compare equal
    with torch.no_grad():
        same = torch.allclose(class_logits(copy, probe), class_logits(network, probe), rtol=1e-3, atol=1e-3, equal_nan=True)
    return copy if same else network
