"""Settings of the metrics: names, baselines, protocol of the curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from hdm_core.settings import Baseline, Settings

# `paper`: points of one per cent each, from and to the baseline. `rise`: Petsiuk et al., BMVC 2018: steps of one row of pixels, and
# insertion starts from the blurred image.
Protocol = Literal["paper", "rise"]


class MetricSettings(Settings):
    """Settings of `evaluate`."""

    added: ClassVar[frozenset[str]] = frozenset({"names", "baselines"})

    names: tuple[str, ...] | None = Field(
        None, min_length=1, description="ids of the metrics, as hdm metrics lists them, paper or all; null for the paper's"
    )
    baseline: Baseline = Field("mean", description="what replaces a removed pixel")
    baselines: tuple[Baseline, ...] = Field(
        ("mean",), min_length=1, description="several baselines, each of which gives its own numbers; baseline is the first of them"
    )
    protocol: Protocol = Field(
        "paper", description="paper: 101 points, from and to the baseline; rise: steps of W pixels, insertion from the blurred image"
    )

    def alone(self, baseline: Baseline) -> MetricSettings:
        """Return the same settings with this baseline as the only one."""
        return self.model_copy(update={"baseline": baseline})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed values; `baseline` and `baselines` stay in step."""
        return super().model_copy(update=_with_both(update or {}), deep=deep)

    def identity(self) -> dict[str, Any]:
        """Return the settings as JSON; a single baseline is no list, as before."""
        identity = super().identity()
        if len(self.baselines) == 1:
            identity.pop("baselines", None)
        return identity

    @model_validator(mode="before")
    @classmethod
    def _fill_in_baselines(cls, data: Any) -> Any:
        return _with_both(data) if isinstance(data, dict) else data

    @field_validator("baselines", mode="after")
    @classmethod
    def _check_baselines(cls, baselines: tuple[Baseline, ...]) -> tuple[Baseline, ...]:
        if len(set(baselines)) != len(baselines):
            raise ValueError(f"metrics.baselines: one of them is named twice: {', '.join(baselines)}")
        return baselines

    @model_validator(mode="after")
    def _check_first(self) -> MetricSettings:
        if self.baselines[0] != self.baseline:
            raise ValueError(
                f"metrics.baseline is {self.baseline}, but the first of metrics.baselines is {self.baselines[0]}: leave baseline out"
            )
        return self


def _with_both(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the one of `baseline` and `baselines` that is not given."""
    several = data.get("baselines")
    if "baseline" in data and "baselines" not in data:
        return {**data, "baselines": (data["baseline"],)}
    if "baseline" not in data and isinstance(several, (list, tuple)) and several:
        return {**data, "baseline": several[0]}
    return dict(data)
