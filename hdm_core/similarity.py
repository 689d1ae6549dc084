"""Similarity of two maps of one image: Spearman correlation, SSIM and overlap."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hdm_core.metrics.pixels import share

MapBatch = NDArray[np.float16]
Similarities = NDArray[np.float64]

TOP_PERCENT = 20  # of the pixels, whose overlap is measured: the ones that average drop 80% shows

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # K1 and K2 of the SSIM paper, for data in [0, 1]


def spearman(before: MapBatch, after: MapBatch) -> Similarities:
    """Compute Spearman's rank correlation of the pixels of each pair of maps.

    Equal pixels share the mean of their ranks.

    Args:
        before, after: (N, H, W) float16 in [0, 1].

    Returns:
        (N,) in [-1, 1]; NaN where a map is constant.
    """
    one, other = (np.stack([_ranks(pixels) for pixels in _sortable_bits(maps)]) for maps in (before, after))
    scale = np.sqrt((one * one).sum(1) * (other * other).sum(1))
    with np.errstate(invalid="ignore"):
        similarity: Similarities = np.clip((one * other).sum(1) / scale, -1, 1)
    return similarity


def overlap(before: MapBatch, after: MapBatch) -> Similarities:
    """Compute the overlap of the most salient pixels of each pair of maps.

    Intersection over union of the most salient 20% of the pixels. Of equal pixels the first ones in row order are taken, as in the metrics.

    Args:
        before, after: (N, H, W) float16 in [0, 1].

    Returns:
        (N,) in [0, 1].
    """
    one, other = _most_salient(before), _most_salient(after)
    similarity: Similarities = (one & other).sum(1) / (one | other).sum(1)
    return similarity


def ssim(before: MapBatch, after: MapBatch) -> Similarities:
    """Compute the structural similarity of each pair of maps.

    Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861: the mean over all positions inside the map of a Gaussian window of
    11 x 11 pixels, sigma 1.5.

    Args:
        before, after: (N, H, W) float16 in [0, 1].

    Returns:
        (N,) in [-1, 1]; NaN if the map is smaller than the window.
    """
    if min(before.shape[1:]) < _WINDOW:
        return np.full(len(before), np.nan)
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    x, y = (torch.from_numpy(maps).double()[:, None] for maps in (before, after))

    def blur(values: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.conv2d(values, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    local = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2) / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))
    similarity: Similarities = local.mean((1, 2, 3)).numpy()
    return similarity


def _sortable_bits(maps: MapBatch) -> NDArray[np.uint16]:
    """View the pixels as integers of the same order, (N, H * W).

    Non-negative floats sort as their bits do, and float16 has few distinct values, so that counting replaces sorting.
    """
    return np.ascontiguousarray(maps).reshape(len(maps), -1).view(np.uint16) & np.uint16(0x7FFF)  # clears the sign of -0.0


def _ranks(pixels: NDArray[np.uint16]) -> Similarities:
    """Return the ranks minus their mean, ties averaged, (n,)."""
    counts = np.bincount(pixels)
    ranks: Similarities = (counts.cumsum() - (counts - 1) / 2)[pixels] - (len(pixels) + 1) / 2
    return ranks


def _most_salient(maps: MapBatch) -> NDArray[np.bool_]:
    """Mark the most salient pixels, (N, H * W) bool."""
    bits = _sortable_bits(maps)
    order = np.argsort(~bits, axis=1, kind="stable")
    top = np.zeros(bits.shape, np.bool_)
    np.put_along_axis(top, order[:, : share(bits.shape[1], TOP_PERCENT, 100)], values=True, axis=1)
    return top
