"""Infidelity to the removal of squares (Yeh et al., NeurIPS 2019).

The perturbed input is the mask of shown pixels, 1 everywhere, and a perturbation I is the indicator of a square that becomes the baseline:
mean over squares of (beta phi . I - (f(1) - f(1 - I)))^2, where phi . I is the map's sum in the square. Maps in [0, 1] have no unit of
probability, so that beta is the factor with the least error, as `captum.metrics.infidelity` has it with `normalize=True`.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.removal import scores_without, sums_inside

_SQUARES = 32
_SIDES = (0.125, 0.5)  # of the shorter side; the squares' sides are uniform between them
_SEED = 0


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def squares(height: int, width: int) -> Tensor:
    """Return the squares as masks (32, H, W) bool on the CPU.

    Sides and places are drawn from a fixed seed, the same for all images of a size.
    """
    short = min(height, width)
    side, row, column = torch.rand(3, _SQUARES, 1, generator=torch.Generator().manual_seed(_SEED), dtype=torch.float64)
    sides = (short * (_SIDES[0] + side * (_SIDES[1] - _SIDES[0]))).round().clamp(min=1)
    top, left = (row * (height - sides + 1)).floor(), (column * (width - sides + 1)).floor()
    rows, columns = torch.arange(height), torch.arange(width)
    of_rows, of_columns = (rows >= top) & (rows < top + sides), (columns >= left) & (columns < left + sides)
    masks: Tensor = of_rows[:, :, None] & of_columns[:, None]
    return masks


def infidelity(sums: Tensor, falls: Tensor) -> Tensor:
    """Return the mean squared error of the scaled sums, (N, S) twice -> (N,) float64.

    It is NaN for a map whose sums are all 0.
    """
    sums, falls = sums.double(), falls.double()
    beta = (sums * falls).mean(1, keepdim=True) / sums.square().mean(1, keepdim=True)
    return (beta * sums - falls).square().mean(1)


def _infidelity(measured: MetricInput) -> Tensor:
    masks = squares(*measured.images.shape[-2:]).to(measured.images.device)
    shown = scores_without(measured, masks, "probability")[measured.index]
    return measured.unless_flat(infidelity(sums_inside(measured.maps, masks), measured.clean[:, None] - shown))


INFIDELITY = Metric(
    id="infidelity",
    title="infidelity",
    definition="mean squared error of the map's scaled sum in a square as the loss of the class's probability without it, over 32 squares",
    lower_is_better=True,
    compute=_infidelity,
    forwards_per_image=lambda height, width: _SQUARES,
    on_request=True,
)
