"""Deletion and insertion: probability while pixels are removed or inserted.

It is the target's probability; the pixels change in descending saliency.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hdm_core.metrics.base import Metric
from hdm_core.metrics.settings import Protocol

_KERNEL, _SIGMA = 11, 5.0  # of RISE's blur


def curve_points(protocol: Protocol, height: int) -> int:
    """Return the number of points of a curve, both ends included."""
    return 101 if protocol == "paper" else height + 1


def rise_blur(images: Tensor) -> Tensor:
    """Blur images (B, C, H, W) as RISE's insertion starts from them; the same shape.

    The blur is that of RISE's program, with zeros beyond the edges. Its kernel is a Gaussian that is mirrored at the sides of
    11 x 11 cells, so that what would fall outside is not lost.
    """
    reach = round(4 * _SIGMA)
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-(offsets.double() ** 2) / (2 * _SIGMA**2))
    cells = (_KERNEL // 2 + offsets) % (2 * _KERNEL)
    mirrored = torch.minimum(cells, 2 * _KERNEL - 1 - cells)
    line = torch.zeros(_KERNEL, dtype=torch.float64).index_add(0, mirrored, taps / taps.sum()).to(images)
    channels = images.shape[1]
    kernel = torch.outer(line, line).expand(channels, 1, -1, -1)
    return F.conv2d(images, kernel, padding=_KERNEL // 2, groups=channels)


def area(curve: Tensor) -> Tensor:
    """Return the area (N,) under curves (N, points) over [0, 1].

    It is that of the trapezoid rule, which RISE uses as well.
    """
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)


DELETION_AUC = Metric(
    id="deletion_auc",
    title="deletion",
    definition="area under the class's probability while pixels are hidden, the most important first",
    lower_is_better=True,
    compute=lambda measured: area(measured.deletion),
)
INSERTION_AUC = Metric(
    id="insertion_auc",
    title="insertion",
    definition="area under the class's probability while pixels appear on an empty image, the most important first",
    lower_is_better=False,
    compute=lambda measured: area(measured.insertion),
)
