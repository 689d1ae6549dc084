"""Edges: the magnitude of the grey image's gradient, by Sobel's filter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.methods.base import ExplainJob
from hdm_core.methods.control import control_method
from hdm_core.settings import Settings

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, with which Pillow converts to grey


class EdgesSettings(Settings):
    """Settings of Edges: none."""


def grey_images(images: Tensor, std: tuple[float, ...] | None) -> Tensor:
    """Return images without colour, (B, C, H, W) -> (B, 1, H, W), up to a constant.

    Args:
        images: normalised.
        std: of the normalisation, which is undone; None where it is unknown. Images that have not three channels get the mean of theirs.
    """
    channels = images.shape[1]
    weights = _LUMA if channels == 3 else (1 / channels,) * channels
    if std is not None and len(std) == channels:
        weights = tuple(weight * spread for weight, spread in zip(weights, std, strict=True))
    # Added one by one: a matrix product rounds by the number of images.
    return torch.stack([weight * images[:, c] for c, weight in enumerate(weights)]).sum(0)[:, None]


def sobel_magnitude(grey: Tensor) -> Tensor:
    """Return sqrt(gx^2 + gy^2) of images (B, 1, H, W), (B, H, W).

    The filters are [1, 2, 1] across and [-1, 0, 1] along a direction. Border pixels are repeated, so that the border is no edge.
    """
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")[:, 0]
    along_rows, along_columns = padded[:, 2:] - padded[:, :-2], padded[:, :, 2:] - padded[:, :, :-2]
    vertical = along_rows[:, :, :-2] + 2 * along_rows[:, :, 1:-1] + along_rows[:, :, 2:]
    horizontal = along_columns[:, :-2] + 2 * along_columns[:, 1:-1] + along_columns[:, 2:]
    return torch.sqrt(vertical**2 + horizontal**2)


def _maps(job: ExplainJob, settings: EdgesSettings) -> Tensor:
    return sobel_magnitude(grey_images(job.images, _std(job.classifier)))


def _std(classifier: Classifier) -> tuple[float, ...] | None:
    return None if classifier.preprocess is None else classifier.preprocess.std


EDGES = control_method(
    id="edges",
    title="Edges",
    source="the edge detector of Adebayo et al.: Sanity Checks for Saliency Maps, NeurIPS 2018, arXiv 1810.03292",
    settings=EdgesSettings(),
    maps=_maps,
)
