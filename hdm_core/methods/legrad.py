"""LeGrad: gradients of a transformer's scores to its attention maps."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.methods.attention import attention_method
from hdm_core.network.attention import AttentionReader
from hdm_core.network.gradients import gradients_of
from hdm_core.network.outputs import logits_in
from hdm_core.network.transformer import Transformer, replaced_tokens, separate_blocks
from hdm_core.settings import Settings


class LeGradSettings(Settings):
    """Settings of LeGrad: the blocks that count, and the pooling of their tokens."""

    blocks: int | None = Field(None, ge=1, description="number of last blocks whose gradients are summed; all by default")
    pool: Literal["mean", "network"] = Field(
        "mean", description="a block's score is that of the mean of its tokens, as in the authors' code; or of the network's own pooling"
    )


def legrad(transformer: Transformer, images: Tensor, targets: Tensor, settings: LeGradSettings) -> Tensor:
    """Compute sum_l 1/(h N) sum_heads sum_queries ReLU(ds^l / dA^l), (B, N).

    A^l are the attention maps of block l, (B, heads, N, N), and s^l is the class's logit when the head of the network is given the tokens
    that leave block l. The head sees the tokens of all blocks in one batch, so that one pass gives all scores.

    Args:
        images: (B, C, H, W).
        targets: (B,) int64.
    """
    count = settings.blocks or len(transformer.blocks)
    attention: list[Tensor] = []

    def to_head(_output: Tensor) -> Tensor:
        tokens = torch.cat(outputs[-count:])
        return tokens.mean(1, keepdim=True).expand_as(tokens) if settings.pool == "mean" else tokens

    # The hooks of a block run in the order in which they are registered: the last block's tokens are recorded, then replaced.
    with torch.enable_grad(), separate_blocks(transformer) as outputs, replaced_tokens(transformer.blocks[-1], to_head):
        with AttentionReader(attention.append, leaves=True):
            logits = logits_in(transformer.network(images))
        used = attention[-count:]
        score = logits.gather(1, targets.repeat(len(used))[:, None]).sum()
        gradients = gradients_of(score, used, "the attention maps")
    return torch.stack([torch.relu(gradient).mean((1, 2)) for gradient in gradients]).sum(0)


LEGRAD = attention_method(
    id="legrad",
    title="LeGrad",
    source="Bousselham et al.: LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity, ICCV 2025",
    settings=LeGradSettings(),
    evidence=legrad,
    sign="only evidence for the class",
)
