"""Settings of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from pipeline.config.messages import describe
from pipeline.errors import InputError
from pipeline.section import Count, Section, Seed


class AuditSettings(Section):
    """Settings of `hdm audit`: how many images it reads, and what counts as a finding."""

    per_class: Count = Field(400, description="Images of a class whose maps are read; more are sampled.")
    min_images: int = Field(5, ge=2, description="Images of a class with fewer are not tested.")
    alpha: float = Field(0.01, gt=0, lt=1, description="Largest p-value of a suspicion, corrected over places and classes.")
    tested: Count = Field(32, description="Images of a class, and of other classes, in a causal test.")
    min_effect: float = Field(
        0.05, ge=0, le=1, description="Smallest mean change of the class's probability, beyond that of random places, that is confirmed."
    )
    compared: int = Field(48, ge=3, description="Images of a class whose pixels are compared, to find places at which they look alike.")
    removal: Literal["swap", "blur", "mean", "black"] = Field(
        "swap",
        description="What a removed place shows: pixels of images of other classes, the image blurred, its mean colour, or black.",
    )
    weak_share: float = Field(0.25, gt=0, le=1, description="Share of a class's maps that are weak from which the class is a finding.")
    seed: Seed = Field(0, description="Seed of samples, permutations and random places.")


def audit_settings(changes: Mapping[str, Any]) -> AuditSettings:
    """Return the settings with some of them changed.

    Raises:
        InputError: for a key that is unknown, or a value that is out of range.
    """
    try:
        return AuditSettings.model_validate(dict(changes))
    except ValidationError as error:
        raise InputError(f"audit: {describe(error, AuditSettings)}") from None
