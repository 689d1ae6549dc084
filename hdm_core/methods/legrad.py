"""LeGrad: gradients of a transformer's scores to its attention maps."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.masking.ops import normalise, upsample
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.attention import AttentionReader
from hdm_core.network.gradients import gradients_of
from hdm_core.network.transformer import Transformer, find_transformer, replaced_tokens, separate_blocks
from hdm_core.settings import Settings
from hdm_core.sources.exported import require_layers


class LeGradSettings(Settings):
    """Settings of LeGrad: the blocks that count, and the tokens that a block's score is of."""

    blocks: int | None = Field(None, ge=1, description="number of last blocks whose gradients are summed; all by default")
    pool: Literal["mean", "network"] = Field(
        "mean",
        description="a block's score is that of the mean of its tokens, as the authors' code has it; or of the network's own pooling",
    )


def legrad(transformer: Transformer, images: Tensor, targets: Tensor, settings: LeGradSettings) -> Tensor:
    """Compute sum_l 1/(h N) sum_heads sum_queries ReLU(ds^l / dA^l), (B, rows, columns).

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
            logits = transformer.network(images)
        used = attention[-count:]
        score = logits.gather(1, targets.repeat(len(used))[:, None]).sum()
        gradients = gradients_of(score, used, "the attention maps")
    evidence = torch.stack([torch.relu(gradient).mean((1, 2)) for gradient in gradients]).sum(0)
    grid = transformer.grid
    return grid.of_patches(evidence).reshape(-1, grid.rows, grid.columns)


def _run(job: ExplainJob, settings: LeGradSettings) -> RawMaps:
    height, width = job.images.shape[-2:]
    transformer = _transformer(job.classifier, job.images)
    maps = []
    for images, targets in zip(torch.split(job.images, job.batch), torch.split(job.targets, job.batch), strict=True):
        evidence = legrad(transformer, images, targets, settings)
        # N also before g: upsampling rounds, so a constant would not stay constant.
        maps.append(normalise(upsample(normalise(evidence)[:, None], height, width))[:, 0])
        job.passes.add(len(images))
    return RawMaps(torch.cat(maps))


def _transformer(classifier: Classifier, images: Tensor) -> Transformer:
    require_layers(classifier.module)
    return find_transformer(classifier.module, images)


def _check(settings: LeGradSettings, classifier: Classifier, image: Tensor) -> Finding:
    """Check that the network has blocks with attention over all patches, and a gradient to it."""
    with torch.inference_mode(False), classifier.frozen():
        transformer = _transformer(classifier, image)
        legrad(transformer, image, torch.zeros(len(image), dtype=torch.int64, device=image.device), settings)
    return blocks_finding(transformer)


def blocks_finding(transformer: Transformer) -> Finding:
    """Describe the blocks of a transformer."""
    grid = transformer.grid
    text = f"{len(transformer.blocks)} blocks attend over {grid.tokens} tokens, of which {grid.rows} x {grid.columns} are patches"
    return Finding("method", "ok", text)


LEGRAD = Method(
    id="legrad",
    title="LeGrad",
    source="Bousselham et al.: LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity, ICCV 2025",
    settings=LeGradSettings,
    presets={"paper": LeGradSettings()},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: 1,
    check=_check,
    needs_attention=True,
    family="attention",
    sign="only evidence for the class",
)
