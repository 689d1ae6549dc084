"""Settings that all methods share, those of DM and HDM, and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Size = Annotated[int, Field(ge=1)]
Ratio = Annotated[int, Field(ge=2)]
Share = Annotated[float, Field(gt=0, lt=1)]
Baseline = Literal["mean", "black", "blur", "noise"]
BaselineChoice = Literal["mean", "black", "blur", "noise", "auto"]
Activation = Literal["logit", "probability", "log_odds"]
Loss = Literal["square", "squared_hinge", "hinge", "linear"]
View = Literal["soft", "top", "rest"]


class Settings(BaseModel):
    """Frozen, validated settings of a method; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    renamed: ClassVar[Mapping[str, str]] = {}  # old name -> new name, so that an error can name the new one
    added: ClassVar[frozenset[str]] = frozenset()  # fields that came after the first version

    def __hash__(self) -> int:
        """Return a hash of the values, of which some are dictionaries."""
        return hash(self.model_dump_json())

    def identity(self) -> dict[str, Any]:
        """Return the settings as JSON, the added ones only where they are not the default.

        So the configurations of earlier versions keep their hash.
        """
        fields = type(self).model_fields
        left_out = {name for name in self.added if getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude=left_out)


class DMSettings(Settings):
    """Settings of DM, Section 3.2 of the paper."""

    renamed: ClassVar[Mapping[str, str]] = {"keep": "keep_fraction"}
    added: ClassVar[frozenset[str]] = frozenset(
        {"loss", "views", "areas", "edge", "max_size", "blur", "schedule", "average", "start", "ensemble", "calibration"}
    )

    sizes: tuple[Size, ...] = Field(min_length=1, description="a_i = b_i: cells of the benchmark masks along the shorter side of the image")
    ratios: tuple[Ratio, ...] = Field(min_length=1, description="t_j: how fast the auxiliary masks grow")
    steps: int = Field(800, ge=1, description="Adam steps per mask (the paper's epochs)")
    learning_rate: float = Field(1e-2, gt=0)
    eta: float = Field(100.0, ge=0, description="weight of the masks' mean in Eq. 6 and 8")
    relative: bool = Field(False, description="J in units of (f_p(X) - f_p(all masked))^2: the scale of the logits does not matter")
    removal: float = Field(
        0.0, ge=0, description="weight of a term that is least when nothing of the class is left without the mask; 0 is the paper's"
    )
    noise: float = Field(
        0.0,
        ge=0,
        description="spread of a smooth random image on the masked pixels, another in every step; 0 is the paper's",
    )
    tau: float = Field(0.5, ge=0, le=1, description="initial value of the benchmark masks")
    keep_fraction: float = Field(0.3, gt=0, le=1, description="gamma keeps this share of the pixels (Eq. 10); 1 keeps all")
    baseline: BaselineChoice = Field(
        "mean",
        description="what replaces a masked pixel: the normalisation mean, black, the blurred image, noise; or auto: for each image the "
        "one of these on which the class loses most",
    )
    activation: Activation = Field(
        "logit", description="f_p: the target's logit, its probability, or its log-odds: the logit minus the logsumexp of the others"
    )
    loss: Loss = Field(
        "square", description="J for what is missing, d = (f_p(X) - f_p(M X)) / unit: d^2, max(d, 0)^2, max(d, 0) or d; d^2 is the paper's"
    )
    views: tuple[View, ...] = Field(
        ("soft",),
        min_length=1,
        description="how masks are tried, in turn: soft (as they are; the paper's), top (the set of the top pixels) or rest (the others)",
    )
    areas: tuple[Share, Share] = Field((0.05, 0.7), description="smallest and largest share of the pixels in a top set; it varies by step")
    edge: float = Field(0.25, gt=0, description="width of a top set's soft edge, in values of the mask")
    max_size: Size | None = Field(None, description="cells of the largest auxiliary mask along the shorter side; None: as many as pixels")
    blur: float = Field(0.0, ge=0, lt=1, description="sigma of a Gaussian after the upsampling g, as a share of the shorter side")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate over the steps; cosine ends at a twentieth")
    average: float = Field(0.0, ge=0, le=1, description="share of the last steps over which Eq. 9 averages a mask; 0 takes the last alone")

    start: Literal["tau", "cam"] = Field(
        "tau", description="benchmark masks start from tau, or from 0.15 + 0.7 times Grad-CAM's map where the network has a layer for it"
    )
    ensemble: tuple[dict[str, Any], ...] = Field(
        (), description="further DM blocks, each with these settings changed; the blocks' masks are added, and N scales the sum"
    )

    calibration: tuple[Share, ...] = Field(
        (),
        description="rising shares of the pixels, most salient first, that are shown to set the final map's values by what the class still "
        "lacks; ranks stay as they are; none: no calibration",
    )

    def members(self) -> list[DMSettings]:
        """Return the settings of every DM block of the ensemble, this one's first."""
        return [self._member(changes) for changes in ({}, *self.ensemble)]

    def _member(self, changes: Mapping[str, Any]) -> DMSettings:
        own = {name: getattr(self, name) for name in DMSettings.model_fields if name != "ensemble"}
        return DMSettings(**{**own, **changes})

    @field_validator("ensemble", mode="after")
    @classmethod
    def _as_json_has_it(cls, ensemble: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """Return lists for tuples, so that settings that were read from JSON are equal."""
        return tuple({name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()} for changes in ensemble)

    @model_validator(mode="after")
    def _check_ensemble(self) -> Self:
        for place, changes in enumerate(self.ensemble):
            shared = {"ensemble", "baseline", "start", "calibration"} & set(changes)
            if shared:
                raise ValueError(f"ensemble.{place} has {', '.join(sorted(shared))}, which all its blocks share")
            try:
                self._member(changes)
            except ValidationError as error:
                raise ValueError(describe_errors(f"ensemble.{place}", DMSettings, error)) from None
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.max_size is not None and self.max_size < max(self.sizes):
            raise ValueError(f"max_size is {self.max_size}, less than the size {max(self.sizes)} of a benchmark mask")
        if self.areas[0] > self.areas[1]:
            raise ValueError(f"areas are {self.areas[0]:g} and {self.areas[1]:g}: the smallest comes first")
        if list(self.calibration) != sorted(set(self.calibration)):
            raise ValueError("calibration: the shares must rise")
        return self


class HDMSettings(DMSettings):
    """Settings of HDM, Section 3.1: `stages` DM blocks and the mixing of their masks."""

    added: ClassVar[frozenset[str]] = DMSettings.added | {"stage_unit", "mixing"}

    stages: int = Field(3, ge=1, description="S: the number of successive DM blocks")
    mix_steps: int = Field(400, ge=1, description="Adam steps for the stage weights; one stage needs none")
    mix_learning_rate: float = Field(1e-1, gt=0)
    mix_weight: float = Field(1e-4, ge=0, description="lambda of Eq. 4")
    stage_unit: Literal["image", "remaining"] = Field(
        "image", description="unit of a relative J in later stages: the evidence of the whole image, or of what the stages before it left"
    )
    mixing: Literal["optimised", "sum"] = Field(
        "optimised", description="weights of the stages by Eq. 3 to 5, or the plain sum, scaled by N"
    )


def did_you_mean(name: str, known: list[str]) -> str:
    """Return "; did you mean X?" with the nearest known name.

    The text is empty if no name is near.
    """
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def describe_errors(method: str, model: type[Settings], error: ValidationError) -> str:
    """Format pydantic's errors about a method's settings as one line.

    An unknown setting is answered with the nearest name.
    """
    return "; ".join(_describe(method, model, dict(item)) for item in error.errors(include_url=False)[:3])


def _describe(method: str, model: type[Settings], item: Mapping[str, Any]) -> str:
    name = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        if new := model.renamed.get(name):
            return f"{method} has no setting {name!r}; it is now called {new}"
        known = list(model.model_fields)
        near = did_you_mean(name, known)
        return f"{method} has no setting {name!r}" + (near or (f": it has {', '.join(known)}" if known else ": it has none"))
    if item["type"] == "missing":
        return f"{method}.{name}: this setting is required"
    message = item["msg"][0].lower() + item["msg"][1:]
    return f"{method}.{name}: {message}, not {item['input']!r}"
