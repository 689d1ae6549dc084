"""HDM, hierarchical dynamic masks: Section 3.1 of the paper, Eq. 1 to 5."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import dm_passes, dynamic_mask
from hdm_core.masking.ops import normalise
from hdm_core.settings import HDMSettings


def hierarchical_mask(consistency: ConsistencyLoss, settings: HDMSettings) -> tuple[Tensor, Tensor, Tensor]:
    """The mixed mask of S DM blocks, each of which sees the image without what the blocks before it found.

    Args:
        consistency: the loss for the images X_0.

    Returns:
        M_h (B, H, W); the stages' masks M_1..M_S (B, S, H, W); their shares w_j / sum w (B, S).
    """
    stages = [dynamic_mask(consistency, settings)]  # Eq. 1
    while len(stages) < settings.stages:
        found = normalise(torch.stack(stages).sum(0))
        remaining = consistency.baseline + (1 - found) * consistency.contrast  # Eq. 2
        stages.append(dynamic_mask(consistency.for_images(remaining), settings))
    masks = torch.cat(stages, 1)
    shares = mix(masks, consistency, settings) if settings.stages > 1 else torch.ones_like(masks[:, :, 0, 0])
    # Shares in floating point may sum to a hair more than 1.
    return mixed(masks, shares).clamp(max=1), masks, shares


def mix(masks: Tensor, consistency: ConsistencyLoss, settings: HDMSettings) -> Tensor:
    """Eq. 5: the stages' shares (B, S), which sum to 1, that minimise J(M_h, X_0) + lambda L_R(M_h)."""
    v = torch.ones(masks.shape[:2], device=masks.device, requires_grad=True)
    image = torch.arange(len(masks), device=masks.device)
    optimiser = torch.optim.Adam([v], lr=settings.mix_learning_rate)
    for _ in range(settings.mix_steps):
        optimiser.zero_grad()
        fused = mixed(masks, stage_shares(v))
        sparsity = fused.abs().mean((1, 2)).sum()
        gradient = consistency.gradient(fused.detach()[:, None], image)[:, 0]
        torch.autograd.backward([fused, settings.mix_weight * sparsity], [gradient, None])
        optimiser.step()
    return stage_shares(v.detach())


def stage_shares(v: Tensor) -> Tensor:
    """w_j / sum_j w_j with w_j = sum_{k >= j} v_k^2, for v (B, S): the shares never grow from stage to stage (Eq. 3)."""
    w = v.square().flip(1).cumsum(1).flip(1)
    return w / w.sum(1, keepdim=True)


def mixed(masks: Tensor, shares: Tensor) -> Tensor:
    """M_h of Eq. 3: masks (B, S, H, W) weighted by shares (B, S) -> (B, H, W)."""
    return (shares[:, :, None, None] * masks).sum(1)


def hdm_passes(settings: HDMSettings, height: int, width: int) -> int:
    """Forward and backward passes of HDM for one image."""
    mixing = settings.mix_steps if settings.stages > 1 else 0
    return settings.stages * dm_passes(settings, height, width) + mixing
