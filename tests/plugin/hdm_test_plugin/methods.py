"""A method from outside: the middle of the image, whatever it shows."""

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
    source="none: the control that shows how far a bias to the middle goes",
    settings=Settings,
    presets={"default": Settings()},
    default="default",
    run=_run,
    passes=lambda settings, height, width: 1,
    backward=False,
)
