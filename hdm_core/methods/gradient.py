"""Gradient: the derivative of the target's logit by each pixel."""

from __future__ import annotations

from hdm_core.methods.attribution import maps_of_gradients, strongest_channel
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.settings import Settings


class GradientSettings(Settings):
    """Settings of Gradient: none."""


def _run(job: ExplainJob, settings: GradientSettings) -> RawMaps:
    return maps_of_gradients(job, lambda images, gradients: strongest_channel(gradients))


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
    signed=True,
)
