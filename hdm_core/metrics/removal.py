"""Scores of images with some of their pixels removed, and the map's sums."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hdm_core.metrics.base import MetricInput
from hdm_core.metrics.forward import even_parts


def scores_without(measured: MetricInput, masks: Tensor, score: Literal["probability", "logit"]) -> Tensor:
    """Return the targets' scores without each mask's pixels, (B, S).

    They depend on no map, so that each image has S passes, however many maps it has.

    Args:
        masks: (S, H, W) bool, the pixels that become the baseline.
    """
    images, baseline, scores = measured.images, measured.baseline(), []
    device = images.device
    image = torch.arange(len(images), device=device).repeat_interleave(len(masks))
    number = torch.arange(len(masks), device=device).repeat(len(images))
    measure = measured.probabilities if score == "probability" else measured.logits
    for part in even_parts(len(image), measured.batch):
        background = baseline if len(baseline) == 1 else baseline[image[part]]
        shown = torch.where(masks[number[part], None], background, images[image[part]])
        scores.append(measure(shown, image[part]))
    return torch.cat(scores).view(len(images), len(masks))


def sums_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the map's sum over each mask's pixels, (N, S) float64.

    Args:
        maps: (N, H, W).
        masks: (S, H, W) bool.
    """
    return torch.stack([(maps * mask).sum((1, 2), dtype=torch.float64) for mask in masks], 1)


def grid(rows: int, columns: int, height: int, width: int, device: torch.device) -> Tensor:
    """Return a grid's cells as masks (rows * columns, H, W) bool, row by row.

    Cells differ by at most one pixel per side; every pixel is in one cell.
    """
    row = torch.arange(height, device=device) * rows // height
    column = torch.arange(width, device=device) * columns // width
    cell = row[:, None] * columns + column
    return cell == torch.arange(rows * columns, device=device)[:, None, None]
