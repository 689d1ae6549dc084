"""Deletion and insertion: the target's probability while pixels go, or come, in descending saliency."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# `paper`: points of one per cent each, from and to the baseline. `rise`: Petsiuk et al., BMVC 2018: steps of a row's width, and insertion
# starts from the blurred image.
Protocol = Literal["paper", "rise"]

_KERNEL, _SIGMA = 11, 5.0  # of RISE's blur


def curve_points(protocol: Protocol, height: int) -> int:
    """How many points a curve has, both ends included."""
    return 101 if protocol == "paper" else height + 1


def rise_blur(images: Tensor) -> Tensor:
    """What RISE's insertion starts from: images (B, C, H, W) blurred as its program does it, with zeros beyond the edges; the same shape.

    Its kernel is a Gaussian that is mirrored at the sides of 11 x 11 cells, so that what would fall outside is not lost.
    """
    reach = round(4 * _SIGMA)
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-(offsets.double() ** 2) / (2 * _SIGMA**2))
    places = (_KERNEL // 2 + offsets) % (2 * _KERNEL)
    mirrored = torch.minimum(places, 2 * _KERNEL - 1 - places)
    line = torch.zeros(_KERNEL, dtype=torch.float64).index_add(0, mirrored, taps / taps.sum()).to(images)
    channels = images.shape[1]
    kernel = torch.outer(line, line).expand(channels, 1, -1, -1)
    return F.conv2d(images, kernel, padding=_KERNEL // 2, groups=channels)


def area(curve: Tensor) -> Tensor:
    """The area under curves (N, points) over [0, 1] by the trapezoid rule, which is RISE's, too: (N,)."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)
