"""Average drop and increase: what is left of the target's probability when only the most salient pixels are shown."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Probability = Callable[[Tensor, Tensor], Tensor]  # images (N, C, H, W), which image of the batch each comes from -> (N,)


def drop_and_increase(
    probability: Probability, images: Tensor, rank: Tensor, baseline: Tensor, clean: Tensor, muted: float
) -> tuple[Tensor, Tensor]:
    """max(0, Y - O) / Y and [Y < O] for every image, each (B,); Section 4.5.

    Args:
        images: (B, C, H, W).
        rank: (B, H, W), every pixel's place in descending saliency.
        baseline: what a muted pixel becomes, broadcastable to images.
        clean: Y, the target's softmax probability on the untouched images, (B,).
        muted: the share of pixels that is muted, such as 0.8: exactly round((1 - muted) H W) pixels are shown.
    """
    pixels = rank.shape[1] * rank.shape[2]
    shown = (rank < round((1 - muted) * pixels))[:, None]
    kept = probability(torch.where(shown, images, baseline), torch.arange(len(images), device=images.device))
    return (clean - kept).clamp(min=0) / clean, (kept > clean).to(clean.dtype)
