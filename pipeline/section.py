"""Base of all configuration sections, and the types that their keys share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from hdm_core.settings import Settings

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Level = Annotated[float, Field(ge=0, le=1)]
Sides = Count | tuple[Count, Count]  # one for both sides, or height and width
Interpolation = Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"]


class Section(Settings):
    """A frozen section of the configuration.

    An unknown key is an error, and `renamed` maps old keys to new ones.
    """


class SectionError(ValueError):
    """Validation errors of a section whose model depends on its contents.

    Attributes:
        section: name of the section, such as dataset or hdm.
        model: the model that refused the section.
        error: the errors, with locations relative to the section.
    """

    def __init__(self, section: str, model: type[BaseModel], error: ValidationError) -> None:
        super().__init__(f"{section}: {error}")
        self.section = section
        self.model = model
        self.error = error
