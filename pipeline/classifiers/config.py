"""Configuration of the classifier: its source, its classes and its preprocessing."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pipeline.classifiers.sources import CLASSIFIER_SOURCES, SOURCE_KEYS
from pipeline.errors import suggest
from pipeline.section import Count, Interpolation, Positive, Section


class ClassifierConfig(Section):
    """Network to explain, and the preprocessing of its images.

    Each source needs some of the keys `arch`, `weights`, `path`, `train`, `factory` and `arguments`, and refuses the others.
    """

    source: str = Field(
        "torchvision", description="Source of the network: torchvision, timm, checkpoint, exported, import, or one of an installed package."
    )
    arch: str | None = Field(
        None, description="Name of a classification network of torchvision or timm; with source checkpoint, the network of a state dict."
    )
    weights: str | None = Field(
        None, description="Entry of torchvision's weights, such as IMAGENET1K_V2, or tag of timm's. Default: random weights, from the seed."
    )
    path: str | None = Field(
        None, description="Folder of a trained classifier with its card.json, file of a state dict, or file of an exported program."
    )
    train: str | None = Field(
        None, description="Preset or file of a training that creates the folder `path` if it does not exist yet. Default: no training."
    )
    factory: str | None = Field(
        None,
        pattern=r"^[\w.]+:[\w.]+$",
        description="Function package.module:function that returns the network. It is executed: name only code that you trust.",
    )
    arguments: dict[str, Any] | None = Field(None, description="Keyword arguments of the factory. Default: none.")
    classes: Count | tuple[str, ...] | str | None = Field(
        None,
        description="Names of the classes, their number, or a text file with one name per line. Default: the names of the classifier.",
    )
    resize: Count | None = Field(None, description="Short side in pixels to which images are resized. Default: as the weights define.")
    crop: Count | None = Field(None, description="Side in pixels of the central crop, the network's input. Default: as the weights define.")
    mean: tuple[float, float, float] | None = Field(
        None, description="Mean of red, green and blue, in 0 to 1, that is subtracted. Default: as the weights define."
    )
    std: tuple[Positive, Positive, Positive] | None = Field(
        None, description="Standard deviation of red, green and blue, in 0 to 1, to divide by. Default: as the weights define."
    )
    interpolation: Interpolation | None = Field(None, description="Interpolation of the resize. Default: as the weights define.")

    @model_validator(mode="after")
    def _check_source(self) -> ClassifierConfig:
        if self.source not in CLASSIFIER_SOURCES:
            raise ValueError(f"classifier.source: unknown source {self.source!r}{suggest(self.source, CLASSIFIER_SOURCES, list_all=True)}")
        source = CLASSIFIER_SOURCES[self.source]
        for key in source.required:
            if not getattr(self, key):
                raise ValueError(f"classifier.{key} is missing: a classifier from {source.id} needs it")
        for key in SOURCE_KEYS:
            if key not in source.required + source.optional and getattr(self, key) is not None:
                raise ValueError(f"classifier.{key} does not apply to a classifier from {source.id}: remove it")
        source.check(self)
        return self
