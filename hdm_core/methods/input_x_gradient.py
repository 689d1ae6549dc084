"""Input x Gradient: the linear share of each pixel in the target's logit."""

from __future__ import annotations

from hdm_core.methods.attribution import maps_of_gradients, pixel_shares
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.settings import Settings


class InputXGradientSettings(Settings):
    """Settings of Input x Gradient: none."""


def _run(job: ExplainJob, settings: InputXGradientSettings) -> RawMaps:
    return maps_of_gradients(job, lambda images, gradients: pixel_shares(gradients * images))


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
    signed=True,
)
