"""Hierarchical dynamic masks (HDM): Section 3.1 of the paper, Eq. 1 to 5."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import Member, dm_passes, ensemble_mask
from hdm_core.masking.ops import normalise
from hdm_core.settings import HDMSettings


def hierarchical_mask(members: Sequence[Member], settings: HDMSettings, start: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Run S stages of DM and mix their masks.

    Each stage gets the image without the pixels that the masks of the stages before it show.

    Args:
        members: losses for the images X_0, with the settings of their DM blocks; one without an ensemble.
        start: maps (B, 1, H, W) in [0, 1] that the masks of the first stage start from, and those of later ones where they are not yet
            explained.

    Returns:
        M_h (B, H, W); the masks of the stages M_1..M_S (B, S, H, W); their weights w_j / sum w (B, S).
    """
    consistency = members[0][0]
    stages = [ensemble_mask(members, start)]  # Eq. 1
    while len(stages) < settings.stages:
        explained = normalise(torch.stack(stages).sum(0))
        remaining = consistency.baseline + (1 - explained) * consistency.contrast  # Eq. 2
        of_stage = [(loss.for_images(remaining, settings.stage_unit == "remaining"), member) for loss, member in members]
        stages.append(ensemble_mask(of_stage, None if start is None else start * (1 - explained)))
    masks = torch.cat(stages, 1)
    if settings.mixing == "sum" and settings.stages > 1:
        return normalise(masks.sum(1)), masks, torch.full_like(masks[:, :, 0, 0], 1 / settings.stages)
    weights = optimize_stage_weights(masks, consistency, settings) if settings.stages > 1 else torch.ones_like(masks[:, :, 0, 0])
    # In floating point the weights may sum to slightly more than 1.
    return mix_stages(masks, weights).clamp(max=1), masks, weights


def optimize_stage_weights(masks: Tensor, consistency: ConsistencyLoss, settings: HDMSettings) -> Tensor:
    """Return the stage weights (B, S) that minimise Eq. 5 and sum to 1.

    Eq. 5 is J(M_h, X_0) + lambda L_R(M_h).
    """
    v = torch.ones(masks.shape[:2], device=masks.device, requires_grad=True)
    image = torch.arange(len(masks), device=masks.device)
    optimiser = torch.optim.Adam([v], lr=settings.mix_learning_rate)
    for _ in range(settings.mix_steps):
        optimiser.zero_grad()
        mixed = mix_stages(masks, stage_weights(v))
        sparsity = mixed.abs().mean((1, 2)).sum()
        gradient = consistency.gradient(mixed.detach()[:, None], image)[:, 0]
        torch.autograd.backward([mixed, settings.mix_weight * sparsity], [gradient, None])
        optimiser.step()
    return stage_weights(v.detach())


def stage_weights(v: Tensor) -> Tensor:
    """Return w_j / sum_j w_j with w_j = sum_{k >= j} v_k^2, for v (B, S).

    By Eq. 3 the weights never grow from stage to stage.
    """
    w = v.square().flip(1).cumsum(1).flip(1)
    return w / w.sum(1, keepdim=True)


def mix_stages(masks: Tensor, weights: Tensor) -> Tensor:
    """Return M_h of Eq. 3: masks (B, S, H, W), weights (B, S) -> (B, H, W)."""
    return (weights[:, :, None, None] * masks).sum(1)


def hdm_passes(settings: HDMSettings, height: int, width: int) -> int:
    """Return the passes per image of HDM."""
    mixing = settings.mix_steps if settings.stages > 1 and settings.mixing == "optimised" else 0
    return settings.stages * dm_passes(settings, height, width) + mixing + len(settings.calibration)
