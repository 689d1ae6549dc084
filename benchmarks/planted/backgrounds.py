"""Crops of photographs that the scikit-image package contains."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

_PHOTOGRAPHS = ("chelsea", "coffee", "astronaut", "rocket")  # files of the package itself: no download
_LARGEST = 256  # pixels along the shorter side of a photograph before it is cropped
_MEAN, _SPREAD = 0.45, 0.25  # of the photographs' values in [0, 1], roughly
_CROP = (0.3, 0.9)  # least and largest side of a crop, in shares of the photograph's square


def photograph_crops(count: int, side: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw square crops of four photographs, half of them mirrored.

    Args:
        count: N.
        side: pixels along a side of a crop.
        generator: on the CPU; the same state gives the same crops.
        device: of the crops.

    Returns:
        (N, 3, side, side) float32, roughly of mean 0 and standard deviation 1.
    """
    photographs = _photographs().to(device)
    which = torch.randint(len(photographs), (count,), generator=generator)
    size, left, top, mirrored = torch.rand(4, count, generator=generator)
    size = _CROP[0] + (_CROP[1] - _CROP[0]) * size
    # grid_sample's square is [-1, 1]: the centre of a crop of this size may be anywhere in [size - 1, 1 - size].
    across, down = (1 - size) * (2 * left - 1), (1 - size) * (2 * top - 1)
    width = torch.where(mirrored < 0.5, -size, size)
    zero = torch.zeros(count)
    places = torch.stack([torch.stack([width, zero, across], 1), torch.stack([zero, size, down], 1)], 1).to(device)
    grid = F.affine_grid(places, [count, 3, side, side], align_corners=False)
    return F.grid_sample(photographs[which.to(device)], grid, mode="bilinear", padding_mode="border", align_corners=False)


@cache
def _photographs() -> Tensor:
    """Return the middle squares of the photographs, (4, 3, 256, 256)."""
    squares = []
    for name in _PHOTOGRAPHS:
        image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
        height, width = image.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = image[:, :, top : top + side, left : left + side]
        squares.append(F.interpolate(square, size=(_LARGEST, _LARGEST), mode="bilinear", align_corners=False, antialias=True))
    return (torch.cat(squares) - _MEAN) / _SPREAD
