"""A method from outside: the centre of the image, whatever the image shows."""

from __future__ import annotations

import torch

from hdm_core import Settings
from hdm_core.methods import ExplainJob, Method, RawMaps


def _run(job: ExplainJob, settings: Settings) -> RawMaps:
    height, width = job.images.shape[-2:]
    y, x = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    centre = 1 - torch.maximum(y[:, None].abs(), x[None].abs())
    job.passes.add(len(job.images))
    return RawMaps(centre.expand(len(job.images), -1, -1).to(job.images))


CENTRE = Method(
    id="centre",
    title="Centre",
    source="none: a control, which shows the bias of a metric to the centre",
    settings=Settings,
    presets={"default": Settings()},
    default="default",
    run=_run,
    passes=lambda settings, height, width: 1,
    backward=False,
)
