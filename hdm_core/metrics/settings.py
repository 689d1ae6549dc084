"""Settings of the metrics: their names, the baseline and the protocol of the curves."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hdm_core.settings import Baseline, Settings

# `paper`: points of one per cent each, from and to the baseline. `rise`: Petsiuk et al., BMVC 2018: steps of one row of pixels, and
# insertion starts from the blurred image.
Protocol = Literal["paper", "rise"]


class MetricSettings(Settings):
    """Settings of `evaluate`."""

    added: ClassVar[frozenset[str]] = frozenset({"names"})

    names: tuple[str, ...] | None = Field(
        None, min_length=1, description="ids of the metrics, as hdm metrics lists them, paper or all; null for the paper's"
    )
    baseline: Baseline = Field("mean", description="what replaces a removed pixel")
    protocol: Protocol = Field(
        "paper", description="paper: 101 points, from and to the baseline; rise: steps of W pixels, insertion from the blurred image"
    )
