"""Linear layer with the same rounding at every batch size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Matrix products of different numbers of rows round differently, so all use blocks of this many rows.
_ROWS = 16


class RowwiseLinear(nn.Module):
    """Linear layer whose result for a row does not depend on the number of rows.

    That is so on the CPU; on a GPU, where convolutions round differently by the batch size as well, it is one product. It runs in float32
    also under autocast. The mask optimiser divides by the size of a gradient and so magnifies rounding, and in bfloat16 a logit of 16 has
    steps of 1/16.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    @staticmethod
    def uses_blocks(device: torch.device) -> bool:
        """Return whether products are of blocks of rows, all of one size."""
        return device.type != "cuda"  # there 256 rows would be 16 kernels

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, features) to (B, classes); other ranks go to the layer unchanged."""
        if features.ndim != 2:
            out: Tensor = self.linear(features)
            return out
        weight, bias = self.linear.weight, self.linear.bias
        with torch.autocast(features.device.type, enabled=False):
            rows, features = len(features), features.to(weight.dtype)
            if not self.uses_blocks(features.device):
                return F.linear(features, weight, bias)
            blocks = torch.split(F.pad(features, (0, 0, 0, -rows % _ROWS)), _ROWS)
            return torch.cat([F.linear(block, weight, bias) for block in blocks])[:rows]
