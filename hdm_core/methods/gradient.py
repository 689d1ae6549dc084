"""Gradient: the derivative of the target's logit by each pixel."""

from __future__ import annotations

import torch

from hdm_core.masking.ops import normalise
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.hooks import forward_to
from hdm_core.settings import Settings


class GradientSettings(Settings):
    """Settings of Gradient: none."""


def _run(job: ExplainJob, settings: GradientSettings) -> RawMaps:
    maps = []
    for images, targets in zip(torch.split(job.images, job.batch), torch.split(job.targets, job.batch), strict=True):
        output = job.layer_output or forward_to(job.classifier.module, None, images)
        maps.append(normalise(output.gradients(targets).abs().amax(1)))  # Section 3.1: the largest over the channels
        job.passes.add(len(images))
    return RawMaps(torch.cat(maps))


GRADIENT = Method(
    id="gradient",
    title="Gradient",
    source="Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, ICLR Workshop 2014, arXiv 1312.6034, Section 3",
    settings=GradientSettings,
    presets={"paper": GradientSettings()},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: 1,
    from_input=True,
    family="gradient",
    sign="absolute values",
)
