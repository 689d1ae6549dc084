"""Controls: maps that know nothing of the class, which every method should beat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hdm_core.masking.ops import normalise
from hdm_core.methods.base import CONTROL, ExplainJob, Method, RawMaps
from hdm_core.settings import Settings


def control_method(id: str, title: str, source: str, settings: Settings, maps: Callable[[ExplainJob, Any], Tensor]) -> Method:  # noqa: A002
    """Build the registry entry of a control.

    It costs the one forward pass that finds the class, without a backward.

    Args:
        maps: a job and the settings -> (B, H, W) of any scale.
    """

    def run(job: ExplainJob, settings: Settings) -> RawMaps:
        job.passes.add(len(job.images))
        return RawMaps(normalise(maps(job, settings)))

    return Method(
        id=id,
        title=title,
        source=source,
        settings=type(settings),
        presets={"standard": settings},
        default="standard",
        run=run,
        passes=lambda settings, height, width: 1,
        backward=False,
        family=CONTROL,
        sign="knows no class",
    )
