"""Deletion and insertion: the target's probability while pixels go, or come, in descending saliency."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.metrics.confidence import Probability
from hdm_core.metrics.pixels import boundaries


def deletion_and_insertion(
    probability: Probability, images: Tensor, rank: Tensor, baseline: Tensor, clean: Tensor, batch: int
) -> tuple[Tensor, Tensor]:
    """Both curves, each (B, 101): the target's softmax probability after round(i H W / 100) pixels were muted, or shown.

    Args:
        images: (B, C, H, W).
        rank: (B, H, W), every pixel's place in descending saliency.
        baseline: what a muted pixel becomes, broadcastable to images.
        clean: the target's probability on the untouched images, (B,): the first point of deletion and the last of insertion.
        batch: how many images go through the network at once.
    """
    counts = boundaries(rank.shape[1] * rank.shape[2])
    points = len(counts)
    images_of = torch.arange(len(images), device=images.device)
    blank = probability(baseline.expand_as(images), images_of)
    deletion = torch.empty(len(images), points, device=images.device)
    insertion = torch.empty_like(deletion)
    deletion[:, 0], insertion[:, -1] = clean, clean
    deletion[:, -1], insertion[:, 0] = blank, blank
    inner = [(image, point) for image in range(len(images)) for point in range(1, points - 1)]
    for start in range(0, len(inner), batch):
        image, point = torch.tensor(inner[start : start + batch], device=images.device).unbind(1)
        moved = (rank[image] < torch.tensor(counts, device=images.device)[point][:, None, None])[:, None]
        untouched, muted = images[image], baseline.expand_as(images)[image]
        deletion[image, point] = probability(torch.where(moved, muted, untouched), image)
        insertion[image, point] = probability(torch.where(moved, untouched, muted), image)
    return deletion, insertion


def area(curve: Tensor) -> Tensor:
    """The area under curves (B, points) over [0, 1] by the trapezoid rule: (B,)."""
    return torch.trapezoid(curve, dim=1) / (curve.shape[1] - 1)
