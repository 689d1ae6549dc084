"""What every method's settings have in common, and those of DM and HDM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Size = Annotated[int, Field(ge=1)]
Ratio = Annotated[int, Field(ge=2)]
Baseline = Literal["mean", "black", "blur"]


class Settings(BaseModel):
    """Frozen, validated settings of a method; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    renamed: ClassVar[Mapping[str, str]] = {}  # old name -> new name, so that an error can say the new one


class DMSettings(Settings):
    """Dynamic masks, Section 3.2 of the paper."""

    renamed: ClassVar[Mapping[str, str]] = {"keep": "keep_fraction"}

    sizes: tuple[Size, ...] = Field(min_length=1, description="a_i = b_i: the sides of the benchmark masks")
    ratios: tuple[Ratio, ...] = Field(min_length=1, description="t_j: how fast the auxiliary masks grow")
    steps: int = Field(800, ge=1, description="Adam steps a mask (the paper's epochs)")
    learning_rate: float = Field(1e-2, gt=0)
    eta: float = Field(100.0, ge=0, description="weight of the masks' mean in Eq. 6 and 8")
    relative: bool = Field(False, description="J in units of (f_p(X) - f_p(all masked))^2: the scale of the logits does not matter")
    removal: float = Field(
        0.0, ge=0, description="weight of a term that wants nothing left of the class without the mask; 0 is the paper's"
    )
    noise: float = Field(
        0.0, ge=0, description="spread of a smooth random picture on the masked pixels, another in every step; 0 is the paper's"
    )
    tau: float = Field(0.5, ge=0, le=1, description="what the benchmark masks start from")
    keep_fraction: float = Field(0.3, gt=0, le=1, description="gamma keeps this share of the pixels (Eq. 10); 1 keeps all")
    baseline: Baseline = Field("mean", description="what a masked pixel becomes: the normalisation mean, black, or the blurred image")
    activation: Literal["logit", "probability"] = Field("logit", description="f_p: the target's logit or its softmax probability")


class HDMSettings(DMSettings):
    """Hierarchical dynamic masks, Section 3.1: `stages` DM blocks and the mixing of their masks."""

    stages: int = Field(3, ge=1, description="S: how many DM blocks follow each other")
    mix_steps: int = Field(400, ge=1, description="Adam steps for the stage weights; one stage needs none")
    mix_learning_rate: float = Field(1e-1, gt=0)
    mix_weight: float = Field(1e-4, ge=0, description="lambda of Eq. 4")
