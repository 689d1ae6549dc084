"""Images of the deletion and insertion curves, as the network saw them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from hdm_core import MetricSettings
from hdm_core.draws import method_generator
from hdm_core.masking.ops import ranks
from hdm_core.metrics.curves import rise_blur
from hdm_core.metrics.pixels import boundaries
from hdm_core.photograph import displayed

Curve = Literal["deletion", "insertion"]


def removal_image(
    crop: Image.Image,
    values: NDArray[np.float32],
    curve: Curve,
    step: int,
    points: int,
    settings: MetricSettings,
    interface: Mapping[str, Any],
) -> Image.Image:
    """Return the image at one point of a curve.

    `step` of `points` - 1 parts of the pixels are changed, the most salient first; see `hdm_core.metrics.views.map_views`. It is drawn from
    the crop of 8 bits, so that it differs from the network's input by rounding.

    Args:
        crop: the crop that the network saw, W x H.
        values: the map (H, W).
        step: from 0 to `points` - 1.
        settings: of the run's metrics: baseline and protocol.
        interface: the preprocessing, of run.json; without it grey stands for the normalisation mean.
    """
    mean, std = (
        torch.tensor(np.broadcast_to(interface.get(key, default), 3).copy(), dtype=torch.float32).view(3, 1, 1)
        for key, default in (("mean", 0.5), ("std", 0.25))
    )
    image = (torch.from_numpy(np.array(crop.convert("RGB"), np.float32) / 255).permute(2, 0, 1) - mean) / std
    changed = boundaries(values.size, points)[step]
    rank = ranks(torch.from_numpy(values)[None])[0]
    background = _background(image, curve, settings, mean, std)
    shown = rank >= changed if curve == "deletion" else rank < changed
    pixels = torch.where(shown, image, background) * std + mean
    return displayed(pixels.permute(1, 2, 0).numpy())


def _background(image: torch.Tensor, curve: Curve, settings: MetricSettings, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Return what stands for the pixels that are not shown, as `baseline_image` does."""
    if curve == "insertion" and settings.protocol == "rise":
        return rise_blur(image[None])[0]
    match settings.baseline:
        case "black":
            return (-mean / std).expand_as(image)
        case "noise":
            return torch.randn(image.shape, generator=method_generator())
        case "blur":
            sigma = min(image.shape[-2:]) / 20
            blurred: torch.Tensor = gaussian_blur(image[None], kernel_size=[2 * round(2 * sigma) + 1] * 2, sigma=[sigma, sigma])[0]
            return blurred
        case _:
            return torch.zeros_like(image)
