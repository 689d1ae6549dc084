"""How alike two maps of one image are: Spearman's correlation of their pixels, SSIM, and the overlap of their most salient pixels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hdm_core.metrics.pixels import share

Maps = NDArray[np.float16]
Numbers = NDArray[np.float64]

TOP = 20  # percent of the pixels whose overlap is measured: those that average drop 80% shows

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # the paper's K1 and K2, for data in [0, 1]


def spearman(before: Maps, after: Maps) -> Numbers:
    """Spearman's rank correlation of the pixels of two maps, (N,) in [-1, 1]; equal pixels share the mean of their ranks.

    NaN where a map is constant.

    Args:
        before, after: (N, H, W) float16 in [0, 1].
    """
    one, other = (np.stack([_ranks(pixels) for pixels in _bits(maps)]) for maps in (before, after))
    scale = np.sqrt((one * one).sum(1) * (other * other).sum(1))
    with np.errstate(invalid="ignore"):
        found: Numbers = np.clip((one * other).sum(1) / scale, -1, 1)
    return found


def overlap(before: Maps, after: Maps) -> Numbers:
    """Intersection over union of the most salient 20% of the pixels of two maps, (N,) in [0, 1].

    Of equal pixels those that come first in row order are taken, as in the metrics.

    Args:
        before, after: (N, H, W) float16 in [0, 1].
    """
    one, other = _top(before), _top(after)
    found: Numbers = (one & other).sum(1) / (one | other).sum(1)
    return found


def ssim(before: Maps, after: Maps) -> Numbers:
    """Structural similarity (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861) of two maps, (N,) in [-1, 1].

    Its mean over all places of a Gaussian window of 11 x 11 pixels, sigma 1.5, that lie inside the map; NaN where the map is smaller.

    Args:
        before, after: (N, H, W) float16 in [0, 1].
    """
    if min(before.shape[1:]) < _WINDOW:
        return np.full(len(before), np.nan)
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    x, y = (torch.from_numpy(maps).double()[:, None] for maps in (before, after))

    def blurred(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(values, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2) / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))
    found: Numbers = alike.mean((1, 2, 3)).numpy()
    return found


def _bits(maps: Maps) -> NDArray[np.uint16]:
    """The maps' pixels as integers of the same order, (N, H * W): floats that are not negative sort as their bits do.

    There are few different ones, so that counting takes the place of sorting.
    """
    return np.ascontiguousarray(maps).reshape(len(maps), -1).view(np.uint16) & np.uint16(0x7FFF)  # without the sign of -0.0


def _ranks(pixels: NDArray[np.uint16]) -> Numbers:
    """Ranks about their mean, ties averaged, (n,)."""
    counts = np.bincount(pixels)
    ranks: Numbers = (counts.cumsum() - (counts - 1) / 2)[pixels] - (len(pixels) + 1) / 2
    return ranks


def _top(maps: Maps) -> NDArray[np.bool_]:
    """Which pixels are the most salient ones, (N, H * W)."""
    bits = _bits(maps)
    order = np.argsort(~bits, axis=1, kind="stable")
    top = np.zeros(bits.shape, np.bool_)
    np.put_along_axis(top, order[:, : share(bits.shape[1], TOP, 100)], values=True, axis=1)
    return top
