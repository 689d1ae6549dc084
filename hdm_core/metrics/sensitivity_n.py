"""Sensitivity-n: random sets of cells (Ancona et al., ICLR 2018).

Pearson's correlation between the map's sum over a set and the loss of the target's probability without it, over random sets of n cells of a
grid. Cells take the place of pixels as in MuFidelity (Bhatt et al., IJCAI 2020): sums over thousands of scattered pixels hardly differ.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.correlation import pearson
from hdm_core.metrics.removal import grid, scores_without, sums_inside

_SIDE = 8  # cells along each side
_REMOVED = 16  # n, of 64 cells
_SETS = 64
_SEED = 0


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def cell_sets(height: int, width: int) -> Tensor:
    """Return the sets as masks (64, H, W) bool on the CPU.

    Each has 16 of 64 cells, drawn from a fixed seed, the same for all images of a size.
    """
    noise = torch.rand(_SETS, _SIDE**2, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float64)
    chosen = noise.argsort(1).argsort(1) < _REMOVED
    cell = grid(_SIDE, _SIDE, height, width, torch.device("cpu")).int().argmax(0)
    return chosen[:, cell]


def sensitivity_n(measured: MetricInput) -> Tensor:
    """Return the correlation of sums over sets and losses of probability, (N,)."""
    masks = cell_sets(*measured.images.shape[-2:]).to(measured.images.device)
    shown = scores_without(measured, masks, "probability")
    return measured.unless_flat(pearson(sums_inside(measured.maps, masks), -shown[measured.index]))


SENSITIVITY_N = Metric(
    id="sensitivity_n",
    title="sensitivity-n",
    definition="correlation, over 64 random quarters of the image, of the map's sum in one and the class's loss of probability without it",
    lower_is_better=False,
    compute=sensitivity_n,
    forwards_per_image=lambda height, width: _SETS,
    value_range=(-1.0, 1.0),
    on_request=True,
)
