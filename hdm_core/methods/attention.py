"""Shared by the methods that read attention maps: batching, and the maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.masking.ops import normalise, upsample
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.transformer import Transformer, find_transformer
from hdm_core.settings import Settings
from hdm_core.sources.exported import require_layers

# Evidence in float32 that varies less than this, relative to its largest value, is constant: N would stretch its rounding.
_ROUNDING = 1e-5

Evidence = Callable[[Transformer, Tensor, Tensor, Any], Tensor]


def attention_method(id: str, title: str, source: str, settings: Settings, evidence: Evidence, sign: str) -> Method:  # noqa: A002
    """Build the registry entry of a method for transformers.

    It costs one pass per image.

    Args:
        settings: those of the preset `paper`.
        evidence: transformer, images (B, C, H, W), targets (B,) and settings -> evidence per token, (B, N).
    """

    def run(job: ExplainJob, chosen: Settings) -> RawMaps:
        transformer = _transformer(job.classifier, job.images)
        maps = []
        for images, targets in zip(torch.split(job.images, job.batch), torch.split(job.targets, job.batch), strict=True):
            maps.append(_patch_maps(transformer, evidence(transformer, images, targets, chosen), *images.shape[2:]))
            job.passes.add(len(images))
        return RawMaps(torch.cat(maps))

    def check(chosen: Settings, classifier: Classifier, image: Tensor) -> Finding:
        with torch.inference_mode(False), classifier.frozen():
            transformer = _transformer(classifier, image)
            evidence(transformer, image, torch.zeros(len(image), dtype=torch.int64, device=image.device), chosen)
        grid = transformer.grid
        text = f"{len(transformer.blocks)} blocks attend over {grid.tokens} tokens, of which {grid.rows} x {grid.columns} are patches"
        return Finding("method", "ok", text)

    return Method(
        id=id,
        title=title,
        source=source,
        settings=type(settings),
        presets={"paper": settings},
        default="paper",
        run=run,
        passes=lambda settings, height, width: 1,
        check=check,
        needs_attention=True,
        family="attention",
        sign=sign,
    )


def _transformer(classifier: Classifier, images: Tensor) -> Transformer:
    require_layers(classifier.module)
    return find_transformer(classifier.module, images)


def _patch_maps(transformer: Transformer, evidence: Tensor, height: int, width: int) -> Tensor:
    """Return N(g(N(E))) of the evidence E at the patches, (B, H, W).

    It is zero where E is constant.
    """
    grid = transformer.grid
    patches = grid.of_patches(evidence)
    largest, least = patches.amax(1, keepdim=True), patches.amin(1, keepdim=True)
    patches = torch.where(largest - least <= _ROUNDING * largest.abs(), 0.0, patches)
    # N also before g: upsampling rounds, so a constant would not stay constant.
    return normalise(upsample(normalise(patches.view(-1, 1, grid.rows, grid.columns)), height, width))[:, 0]
