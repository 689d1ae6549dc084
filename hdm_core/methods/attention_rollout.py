"""Attention rollout: attention maps multiplied from block to block.

The map does not depend on the target class.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.methods.attention import attention_method
from hdm_core.network.attention import AttentionReader
from hdm_core.network.gradients import gradient_of
from hdm_core.network.outputs import logits_in
from hdm_core.network.transformer import Transformer, replaced_tokens
from hdm_core.settings import Settings


class AttentionRolloutSettings(Settings):
    """Settings of attention rollout: fusion of the heads, share of the residual."""

    fusion: Literal["mean", "max", "min"] = Field("mean", description="of a block's heads")
    residual: float = Field(0.5, ge=0, lt=1, description="share of the residual connection, the identity, in a block's mixing of tokens")


def attention_rollout(transformer: Transformer, images: Tensor, targets: Tensor, settings: AttentionRolloutSettings) -> Tensor:
    """Compute the rows of R = A_L ... A_1 that lead to the logits, (B, N).

    A_l = r I + (1 - r) fused(attention of block l), each row divided by its sum, (B, N, N). The rows are those of the tokens of the last
    block to which a gradient of the target's logit is not zero, in equal parts: the class token, or all tokens where the network averages
    them.

    Args:
        images: (B, C, H, W).
        targets: (B,) int64.
    """
    rollout: list[Tensor] = []

    def mix(attention: Tensor) -> None:
        fused = attention.mean(1) if settings.fusion == "mean" else getattr(attention, "a" + settings.fusion)(1)
        mixing = settings.residual * torch.eye(fused.shape[-1], dtype=fused.dtype, device=fused.device) + (1 - settings.residual) * fused
        mixing = mixing / mixing.sum(-1, keepdim=True)
        rollout[:] = [mixing @ rollout[0] if rollout else mixing]

    tokens: list[Tensor] = []

    def to_leaf(output: Tensor) -> Tensor:
        tokens.append(output.detach().requires_grad_())
        return tokens[0].clone()  # a later operation in place may overwrite it

    with torch.enable_grad(), replaced_tokens(transformer.blocks[-1], to_leaf), AttentionReader(mix):
        logits = logits_in(transformer.network(images))
    gradient = gradient_of(logits.gather(1, targets[:, None]).sum(), tokens[0], "the tokens of the last block")
    rows = (gradient != 0).any(2).to(gradient)
    return (rows[:, None] @ rollout[0])[:, 0]


ATTENTION_ROLLOUT = attention_method(
    id="attention_rollout",
    title="Attention rollout",
    source="Abnar, Zuidema: Quantifying Attention Flow in Transformers, ACL 2020, arXiv 2005.00928",
    settings=AttentionRolloutSettings(),
    evidence=attention_rollout,
    sign="independent of the class",
)
