"""Operations on masks: N, g, sizes of the auxiliary masks, the threshold gamma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the largest value. Where an image has no evidence all pixels of a mask sink alike, and N would stretch their rounding to a map; of ten
# masks in float32 it is some 1e-6.
_ROUNDING = 1e-5


def normalise(x: Tensor) -> Tensor:
    """Scale (..., H, W) to [0, 1] image by image: N of Eq. 2 and 10.

    A constant map becomes all zeros.
    """
    low = x.amin((-2, -1), keepdim=True)
    spread = x.amax((-2, -1), keepdim=True) - low
    return torch.where(spread == 0, torch.zeros_like(x), (x - low) / torch.where(spread == 0, 1.0, spread))


def ranks(maps: Tensor) -> Tensor:
    """Return the pixels' ranks: maps (N, H, W) -> (N, H, W) int64.

    The most salient pixel has the rank 0.
    Ties go to the pixel that comes first in row order.
    """
    pixels = maps.flatten(1)
    order = pixels.argsort(dim=1, descending=True, stable=True)
    positions = torch.arange(pixels.shape[1], device=maps.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions).reshape(maps.shape)


def upsample(v: Tensor, height: int, width: int) -> Tensor:
    """Upsample (B, 1, a, b) to (B, 1, height, width): g(v, h, w) of the paper.

    Bilinear, corners not aligned.
    """
    return F.interpolate(v, size=(height, width), mode="bilinear", align_corners=False)


# Small matrices are zero-padded to a multiple of this: matrix products round a mask of an odd size differently by its alignment in memory,
# and so by the other masks in its batch.
_MULTIPLE = 16

# Sizes whose matrices stay in memory, the latest. The paper's settings have 56 per image size, of together 8 MB for images of 224 pixels.
_CACHED_SIZES = 256


class Upsampling:
    """Upsampling g(., H, W) for masks of one size by precomputed matrices.

    g(v) = A v B^T, and the adjoint is A^T G B. With a `blur` g is followed by a Gaussian whose sigma is `blur` pixels, which the matrices
    include. Objects of the same sizes share their matrices.

    Attributes:
        weights: (a, b), the derivative of mean g(v) by each element of v. They sum to 1.
    """

    def __init__(self, size: tuple[int, int], height: int, width: int, like: Tensor, blur: float = 0.0) -> None:
        self._size = size
        self._rows, self._columns, self.weights = _matrices(size, height, width, blur, like.dtype, like.device)

    def __call__(self, v: Tensor) -> Tensor:
        """Upsample (B, 1, a, b) to (B, 1, H, W)."""
        return _matrix_product(self._rows, _zero_padded(v[:, 0], both=True), self._columns.T)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Map a gradient to g(v), (B, 1, H, W), to the gradient to v, (B, 1, a, b)."""
        return _matrix_product(self._rows.T, gradient[:, 0], self._columns)[:, :, : self._size[0], : self._size[1]]


@lru_cache(maxsize=_CACHED_SIZES)
@torch.inference_mode(False)  # what is made in inference mode has no place in a later graph
def _matrices(
    size: tuple[int, int], height: int, width: int, blur: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return A, B and the weights of an `Upsampling`; A and B are padded.

    They are computed in float64 on the CPU, and once per size: each copy to a device makes the host wait for it.
    """
    rows, columns = _interpolation(size[0], height), _interpolation(size[1], width)
    if blur:
        rows, columns = _gaussian(height, blur) @ rows, _gaussian(width, blur) @ columns
    weights = torch.outer(rows.sum(0), columns.sum(0)).to(device, dtype) / (height * width)
    return _zero_padded(rows.to(device, dtype)), _zero_padded(columns.to(device, dtype)), weights


def _matrix_product(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """Return left @ middle @ right, mask by mask: (B, h, w) -> (B, 1, h', w')."""
    count = len(middle)
    return torch.bmm(left.expand(count, -1, -1), torch.bmm(middle, right.expand(count, -1, -1)))[:, None]


def _zero_padded(x: Tensor, both: bool = False) -> Tensor:
    """Zero-pad the last dimension, or the last two."""
    return F.pad(x, (0, -x.shape[-1] % _MULTIPLE) + ((0, -x.shape[-2] % _MULTIPLE) if both else ()))


def _interpolation(small: int, large: int) -> Tensor:
    """Return the matrix (large, small) of g along one side, float64."""
    unit = torch.eye(small, dtype=torch.float64)[:, None]
    return F.interpolate(unit, size=large, mode="linear", align_corners=False)[:, 0].T.contiguous()


def _gaussian(size: int, sigma: float) -> Tensor:
    """Return the matrix (size, size) of a Gaussian blur along one side, float64.

    At the edges it averages over the pixels inside the image.
    """
    pixel = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def depth(size: int, ratio: int, limit: int) -> int:
    """Return K of Eq. 7 along one side: the largest k with ratio**k * size <= limit.

    Computed in integers: the paper's floor of a quotient of logarithms loses exact powers in floating point (224 / 7 = 2**5).

    Raises:
        ValueError: if size > limit, size < 1 or ratio < 2.
    """
    if not 1 <= size <= limit:
        raise ValueError(f"mask size {size} is not between 1 and the image's side {limit}")
    if ratio < 2:
        raise ValueError(f"ratio {ratio} is not an integer of at least 2")
    k = 0
    while size * ratio ** (k + 1) <= limit:
        k += 1
    return k


@dataclass(frozen=True)
class AuxiliaryMask:
    """Auxiliary mask c_j^k(i): its benchmark mask, its ratio and its size in pixels."""

    base: int  # i, an index into sizes
    ratio: int  # t_j
    size: int  # t_j ** k * a_i, along the shorter side of the image


def mask_shape(size: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of a mask with `size` cells along the shorter side.

    The longer side has as many more as it is longer, rounded, halves up, so that cells are square. The paper's images are square.
    """
    short = min(height, width)
    rows, columns = ((2 * size * side + short) // (2 * short) for side in (height, width))
    return rows, columns


def auxiliary_masks(
    sizes: Sequence[int], ratios: Sequence[int], height: int, width: int, max_size: int | None = None
) -> list[list[AuxiliaryMask]]:
    """List the auxiliary masks of Eq. 7 by level: element k - 1 holds the c_j^k(i).

    Every mask of a level depends only on the level before it, so one level is trained as one batch.

    Args:
        max_size: size of the largest; None for that of the image.
    """
    limit = min(height, width)
    levels: list[list[AuxiliaryMask]] = []
    for base, size in enumerate(sizes):
        for ratio in ratios:
            for k in range(1, depth(size, ratio, limit) + 1):
                while len(levels) < k:
                    levels.append([])
                levels[k - 1].append(AuxiliaryMask(base, ratio, ratio**k * size))
    if max_size is not None:
        levels = [[mask for mask in level if mask.size <= max_size] for level in levels]
    return [level for level in levels if level]


def masks_trained(sizes: Sequence[int], ratios: Sequence[int], height: int, width: int, max_size: int | None = None) -> int:
    """Return the number of masks that one DM block trains: benchmark and auxiliary."""
    return len(sizes) + sum(len(level) for level in auxiliary_masks(sizes, ratios, height, width, max_size))


def keep_top(stacked: Tensor, keep_fraction: float) -> Tensor:
    """Threshold M_c (B, 1, H, W) to its top pixels, scaled to [0, 1] (Eq. 10).

    M_b = N((M_c - gamma) [M_c >= gamma]), where gamma is the smallest value among the top `keep_fraction` of an image's pixels,
    0 < keep_fraction <= 1. Where all pixels are equal but for rounding, M_b is 0.
    """
    low, high = stacked.amin((2, 3), keepdim=True), stacked.amax((2, 3), keepdim=True)
    stacked = torch.where(high - low <= _ROUNDING * high.abs(), high, stacked)
    pixels = stacked.flatten(1)
    count = max(1, round(keep_fraction * pixels.shape[1]))
    gamma = pixels.topk(count, dim=1).values[:, -1][:, None, None, None]
    # relu is (M_c - gamma) [M_c >= gamma] and propagates NaN.
    return normalise(torch.relu(stacked - gamma))
