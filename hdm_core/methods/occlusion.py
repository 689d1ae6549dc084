"""Occlusion: the drop of the class's probability behind a square that slides."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import normalise
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.job_loss import job_loss
from hdm_core.settings import Activation, Baseline, Settings


class OcclusionSettings(Settings):
    """Settings of Occlusion: the square, its steps and its value."""

    window: float = Field(1 / 7, gt=0, le=1, description="side of the square, as a share of the image's shorter side, rounded to pixels")
    stride: float = Field(0.5, gt=0, le=1, description="step from one square to the next, as a share of its side, rounded to pixels")
    baseline: Baseline = Field("mean", description="value of a hidden pixel: the normalisation mean, black, or the blurred image")
    activation: Activation = Field("probability", description="f_p whose drop counts: the target's probability, its logit or its log-odds")


class Windows:
    """Positions of a square along both axes of an image, the last ones at its end.

    Attributes:
        side: of the square, in pixels.
        rows, columns: indicators (positions, pixels) float64, 1 where the square at a position covers a pixel.
    """

    def __init__(self, settings: OcclusionSettings, height: int, width: int, device: torch.device | None = None) -> None:
        self.side = max(1, round(settings.window * min(height, width)))
        step = max(1, round(settings.stride * self.side))
        self.rows, self.columns = (_covered(self.side, step, pixels).to(device) for pixels in (height, width))

    def __len__(self) -> int:
        """Return the number of positions."""
        return len(self.rows) * len(self.columns)

    def masks(self, part: slice, like: Tensor) -> Tensor:
        """Return masks that are 0 in the square and 1 elsewhere, (n, 1, H, W).

        Positions are in row order.
        """
        position = torch.arange(len(self), device=like.device)[part]
        rows, columns = self.rows[position // len(self.columns)], self.columns[position % len(self.columns)]
        return (1 - rows[:, :, None] * columns[:, None])[:, None].to(like)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the squares that cover each pixel.

        Values (B, positions) give (B, H, W), in float64: its rounding, which depends on the number of images, is gone in float32.
        """
        sums = self.rows.T @ values.double().view(-1, len(self.rows), len(self.columns)) @ self.columns
        return sums / torch.outer(self.rows.sum(0), self.columns.sum(0))


def _covered(side: int, step: int, pixels: int) -> Tensor:
    """Return the indicators of one axis.

    Starts are a step apart, and the last square ends with the image.
    """
    last = pixels - side
    starts = torch.tensor([*range(0, last, step), last])
    pixel = torch.arange(pixels)
    return ((pixel >= starts[:, None]) & (pixel < starts[:, None] + side)).double()


def occlusion(consistency: ConsistencyLoss, windows: Windows) -> Tensor:
    """Return the mean drop of f_p over the squares that hide each pixel.

    Args:
        consistency: holds the images X.

    Returns:
        (B, H, W) float64, negative where hiding a pixel raises f_p.
    """
    images = torch.arange(len(consistency), device=consistency.contrast.device)
    windows_per_batch = max(1, consistency.batch // len(images))
    scores = []
    for start in range(0, len(windows), windows_per_batch):
        part = windows.masks(slice(start, start + windows_per_batch), consistency.contrast)
        hidden = consistency.scores(part.repeat_interleave(len(images), 0), images.repeat(len(part)))
        scores.append(hidden.view(-1, len(images)))
    return windows.mean((consistency.reference - torch.cat(scores)).T)


def _run(job: ExplainJob, settings: OcclusionSettings) -> RawMaps:
    baseline = baseline_image(settings.baseline, job.classifier, job.images)
    height, width = job.images.shape[-2:]
    with job.classifier.folded(job.images[:1]) as network:
        # Not in bfloat16, whose rounding is as large as the drop behind one square.
        consistency = job_loss(ConsistencyLoss, replace(job, precision="float32"), network, baseline, settings.activation)
        drops = occlusion(consistency, Windows(settings, height, width, job.images.device))
    return RawMaps(normalise(drops).to(job.images.dtype), signed=drops.to(job.images.dtype))


OCCLUSION = Method(
    id="occlusion",
    title="Occlusion",
    source="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014, arXiv 1311.2901, Section 4.2",
    settings=OcclusionSettings,
    presets={"standard": OcclusionSettings(window=1 / 7, stride=0.5)},
    default="standard",
    run=_run,
    passes=lambda settings, height, width: len(Windows(settings, height, width)),
    backward=False,
    family="masks",
    sign="drop of the probability, no sign",
    signed=True,
)
