"""Settings of the search for pieces of evidence."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from hdm_core.methods.dm import DM
from hdm_core.settings import Baseline, DMSettings, Settings, Share


class EvidenceSettings(Settings):
    """Settings of `find_evidence`."""

    preset: str = Field("faithful", description="preset of DM whose masks rank the pixels that are left; HDM has the same presets")
    dm: dict[str, Any] = Field(default_factory=dict, description="settings of DM that replace the preset's")
    max_pieces: int = Field(6, ge=1, description="largest number of pieces per image")
    kept: float = Field(0.9, gt=0, le=1, description="share of the image's score that a sufficient set keeps when it is shown alone")
    score: Literal["probability", "log_odds"] = Field(
        "probability",
        description="score of the class: its probability, in shares of the image's; or its log-odds, in shares of the difference between "
        "the image and the baseline, as a regression's output always is",
    )
    areas: tuple[Share, ...] = Field(
        (0.005, 0.01, 0.02, 0.04, 0.08, 0.14, 0.22, 0.32, 0.45, 0.6, 0.8),
        description="rising shares of the image's pixels, most salient first, that are tried until one suffices",
    )
    bisections: int = Field(5, ge=0, description="bisection steps between the share that suffices and the one before it")
    cells: int = Field(
        7, ge=1, description="cells along each side of the image; those that a piece does not need are dropped from it; 1 drops none"
    )
    margin: float = Field(
        0.05,
        ge=0,
        lt=0.5,
        description="pixels around a piece that are removed with it, as a share of the shorter side, so that later pieces are not what is "
        "left of the same object; 0 removes the piece alone",
    )

    @property
    def blocks(self) -> DMSettings:
        """Settings of the DM blocks, without the calibration, which changes no rank."""
        try:
            settings = DM.configure(self.preset, **{**self.dm, "calibration": ()})
        except (ValueError, TypeError) as error:  # TypeError: a key such as `self`
            raise ValueError(f"evidence: {error}") from None
        if not isinstance(settings, DMSettings):
            raise TypeError(f"{DM.id} has other settings than DMSettings")
        return settings

    @property
    def baseline(self) -> Baseline:
        """Baseline that replaces the pixels that are not shown."""
        baseline = self.blocks.baseline
        if baseline == "auto":  # pieces of one image would be compared with those of another on another ground
            raise ValueError("evidence.dm.baseline: auto is chosen per image; name one of mean, black, blur and noise")
        return baseline

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.baseline
        if list(self.areas) != sorted(set(self.areas)):
            raise ValueError("evidence.areas: the shares must rise")
        return self
