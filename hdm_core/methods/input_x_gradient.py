"""Input x Gradient: the linear share of each pixel in the target's logit."""

from __future__ import annotations

import torch

from hdm_core.methods.attribution import pixel_shares
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.hooks import forward_to
from hdm_core.settings import Settings


class InputXGradientSettings(Settings):
    """Settings of Input x Gradient: none."""


def _run(job: ExplainJob, settings: InputXGradientSettings) -> RawMaps:
    maps = []
    for images, targets in zip(torch.split(job.images, job.batch), torch.split(job.targets, job.batch), strict=True):
        output = job.layer_output or forward_to(job.classifier.module, None, images)
        maps.append(pixel_shares(output.gradients(targets) * images))
        job.passes.add(len(images))
    return RawMaps(torch.cat(maps))


INPUT_X_GRADIENT = Method(
    id="input_x_gradient",
    title="Input x Gradient",
    source="Shrikumar, Greenside, Shcherbina, Kundaje: Not Just a Black Box, arXiv 1605.01713",
    settings=InputXGradientSettings,
    presets={"paper": InputXGradientSettings()},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: 1,
    from_input=True,
    family="gradient",
    sign="absolute values",
)
