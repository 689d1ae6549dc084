"""The paper's small pieces: N, g, the ladder of mask sizes and the threshold gamma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def normalise(x: Tensor) -> Tensor:
    """N of Eq. 2 and 10: (..., H, W) scaled to [0, 1] image by image; a constant map becomes all zeros."""
    low = x.amin((-2, -1), keepdim=True)
    spread = x.amax((-2, -1), keepdim=True) - low
    return torch.where(spread == 0, torch.zeros_like(x), (x - low) / torch.where(spread == 0, 1.0, spread))


def upsample(v: Tensor, height: int, width: int) -> Tensor:
    """g(v, h, w) of the paper: (B, 1, a, b) -> (B, 1, height, width), bilinear, corners not aligned."""
    return F.interpolate(v, size=(height, width), mode="bilinear", align_corners=False)


# Small matrices are filled up to a multiple of this with zeros: matrix products round a mask of an odd size differently by its place in
# memory, and so by the company it is in.
_ALIGNED = 16


class Upsampling:
    """g(., H, W) for masks of one size as two matrices that are made once, g(v) = A v B^T, and its adjoint A^T G B.

    With a `blur` g is followed by a Gaussian of so many pixels, which the matrices hold as well.

    Attributes:
        weights: (a, b), the derivative of mean g(v) by each element of v. They sum to 1.
    """

    def __init__(self, size: tuple[int, int], height: int, width: int, like: Tensor, blur: float = 0.0) -> None:
        self._size = size
        rows, columns = _interpolation(size[0], height), _interpolation(size[1], width)
        if blur:
            rows, columns = _gaussian(height, blur) @ rows, _gaussian(width, blur) @ columns
        self.weights = torch.outer(rows.sum(0), columns.sum(0)).to(like) / (height * width)
        self._rows, self._columns = _aligned(rows.to(like)), _aligned(columns.to(like))

    def __call__(self, v: Tensor) -> Tensor:
        """(B, 1, a, b) -> (B, 1, H, W)."""
        return _between(self._rows, _aligned(v[:, 0], both=True), self._columns.T)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """A gradient to g(v), (B, 1, H, W) -> the gradient to v, (B, 1, a, b)."""
        return _between(self._rows.T, gradient[:, 0], self._columns)[:, :, : self._size[0], : self._size[1]]


def _between(left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
    """The product left @ middle @ right, mask by mask: (B, h, w) -> (B, 1, h', w')."""
    count = len(middle)
    return torch.bmm(left.expand(count, -1, -1), torch.bmm(middle, right.expand(count, -1, -1)))[:, None]


def _aligned(x: Tensor, both: bool = False) -> Tensor:
    """Zeros added to the last side, or the last two."""
    return F.pad(x, (0, -x.shape[-1] % _ALIGNED) + ((0, -x.shape[-2] % _ALIGNED) if both else ()))


def _interpolation(small: int, large: int) -> Tensor:
    """The matrix (large, small) of g along one side, float64."""
    unit = torch.eye(small, dtype=torch.float64)[:, None]
    return F.interpolate(unit, size=large, mode="linear", align_corners=False)[:, 0].T.contiguous()


def _gaussian(size: int, sigma: float) -> Tensor:
    """The matrix (size, size) of a Gaussian blur along one side, float64. At the edges it averages over what there is."""
    pixel = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2))
    return weights / weights.sum(1, keepdim=True)


def depth(size: int, ratio: int, limit: int) -> int:
    """K of Eq. 7 along one side: the largest k with ratio**k * size <= limit.

    In integers: the paper's floor of a quotient of logarithms loses exact powers in floating point (224 / 7 = 2**5).

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
    """One auxiliary mask c_j^k(i): which benchmark mask it grows from, its ratio and its size in pixels."""

    base: int  # i, an index into sizes
    ratio: int  # t_j
    size: int  # t_j ** k * a_i


def auxiliary_masks(sizes: Sequence[int], ratios: Sequence[int], height: int, width: int) -> list[list[AuxiliaryMask]]:
    """The auxiliary masks of Eq. 7, level by level: element k - 1 lists the masks c_j^k(i) that exist.

    Every mask of a level depends only on the level below it, so a level can be trained as one batch.
    """
    limit = min(height, width)
    levels: list[list[AuxiliaryMask]] = []
    for base, size in enumerate(sizes):
        for ratio in ratios:
            for k in range(1, depth(size, ratio, limit) + 1):
                while len(levels) < k:
                    levels.append([])
                levels[k - 1].append(AuxiliaryMask(base, ratio, ratio**k * size))
    return levels


def masks_trained(sizes: Sequence[int], ratios: Sequence[int], height: int, width: int) -> int:
    """How many masks one DM block trains: the D benchmark masks and all auxiliary ones."""
    return len(sizes) + sum(len(level) for level in auxiliary_masks(sizes, ratios, height, width))


def keep_top(stacked: Tensor, keep: float) -> Tensor:
    """Eq. 10, M_b = N((M_c - gamma) [M_c >= gamma]): (B, 1, H, W) -> the same shape in [0, 1].

    gamma is the smallest value among the top `keep` share of an image's pixels, 0 < keep <= 1.
    """
    pixels = stacked.flatten(1)
    count = max(1, round(keep * pixels.shape[1]))
    gamma = pixels.topk(count, dim=1).values[:, -1][:, None, None, None]
    # relu is (M_c - gamma) [M_c >= gamma] and hands NaN on.
    return normalise(torch.relu(stacked - gamma))
