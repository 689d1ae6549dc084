"""Centre: a Gaussian blob in the middle of every image."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.methods.base import ExplainJob
from hdm_core.methods.control import control_method
from hdm_core.settings import Settings


class CenterSettings(Settings):
    """Settings of Centre: the width of the blob."""

    width: float = Field(0.25, gt=0, allow_inf_nan=False, description="standard deviation of the Gaussian, as a share of each side")


def center_map(height: int, width: int, share: float) -> Tensor:
    """Return exp(-(y^2 / h^2 + x^2 / w^2) / (2 share^2)), (H, W) float64.

    y and x are distances in pixels from the middle of an image of h x w, so that the blob is an ellipse in an oblong image. It is symmetric
    to the last bit.
    """
    rows, columns = (((torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / side) ** 2 for side in (height, width))
    return torch.exp(-(rows[:, None] + columns) / (2 * share**2))


def _maps(job: ExplainJob, settings: CenterSettings) -> Tensor:
    height, width = job.images.shape[-2:]
    blob = center_map(height, width, settings.width).to(job.images.device, job.images.dtype)
    return blob.repeat(len(job.images), 1, 1)


CENTER = control_method(
    id="center",
    title="Centre",
    source="the centre prior of Judd, Durand, Torralba: A Benchmark of Computational Models of Saliency, MIT-CSAIL-TR-2012-001",
    settings=CenterSettings(width=0.25),
    maps=_maps,
)
