"""Configuration of the classifier, and the registry of its sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from hdm_core import Classifier, Preprocess
from hdm_core.problem_type import ProblemType
from hdm_core.registry import Registry
from pipeline.classifiers.factory import call_factory
from pipeline.errors import suggest
from pipeline.section import Count, Interpolation, Level, Positive, Section, Sides

# Keys of ClassifierConfig that belong to some sources; all other keys are valid for every source.
SOURCE_KEYS = ("arch", "weights", "path", "train", "factory", "arguments")

_ADDED_KEYS = frozenset({"output", "problem_type", "pad", "fill", "channels", "value_range"})

Classes = int | tuple[str, ...] | None


class ClassifierConfig(Section):
    """Network to explain, and the preprocessing of its images.

    Each source needs some of the keys `arch`, `weights`, `path`, `train`, `factory` and `arguments`, and refuses the others.
    """

    source: str = Field(
        "torchvision",
        description="Source of the network: torchvision, timm, transformers, checkpoint, exported, import, or one of an installed package.",
    )
    arch: str | None = Field(
        None,
        description="Name of a classification network of torchvision or timm; with source checkpoint, the network of a state dict; "
        "with source transformers, a repository ORG/NAME of the hub.",
    )
    weights: str | None = Field(
        None, description="Entry of torchvision's weights, such as IMAGENET1K_V2, or tag of timm's. Default: random weights, from the seed."
    )
    path: str | None = Field(
        None,
        description="Folder of a trained classifier with its card.json, or of transformers; file of a state dict or an exported program.",
    )
    train: str | None = Field(
        None, description="Preset or file of a training that creates the folder `path` if it does not exist yet. Default: no training."
    )
    factory: str | None = Field(
        None,
        pattern=r"^[\w.]+:[\w.]+$",
        description="Function package.module:function that returns the network. It is executed: name only code that you trust.",
    )
    arguments: dict[str, Any] | None = Field(
        None, description="Keyword arguments of the factory, or of the library's builder of `arch`. Default: none."
    )
    classes: Count | tuple[str, ...] | str | None = Field(
        None,
        description="Names of the classes, their number, or a text file with one name per line. Default: the names of the classifier.",
    )
    output: int | str | None = Field(
        None,
        description="Key, attribute, index or dotted path of the logits in an output of several tensors, such as logits or 0. "
        "Default: the only tensor that can be the logits.",
    )
    problem_type: ProblemType | None = Field(
        None,
        description="Meaning of the network's outputs: single_label_classification (classes that exclude each other), "
        "multi_label_classification (labels of their own, or one logit for yes), regression (numbers). "
        "Default: as the source defines, else single_label_classification.",
    )
    resize: Sides | None = Field(
        None,
        description="Short side in pixels to which images are resized, or [height, width] exactly, whatever their proportions. "
        "Default: as the weights define.",
    )
    crop: Sides | None = Field(
        None,
        description="Side in pixels, or [height, width], of the central crop, the network's input. "
        "Default: none with pad or an exact resize, else as the weights define.",
    )
    pad: bool | None = Field(
        None,
        description="Fit the whole image into resize (letterbox), by default the size of the network's input, and fill the rest. "
        "Default: no.",
    )
    fill: Level | Annotated[tuple[Level, ...], Field(min_length=1)] | None = Field(
        None, description="Value of what lies beyond the image, in 0 to 1, one or one per channel. Default: 0, black."
    )
    channels: Count | None = Field(
        None, description="Channels of the network's images: 1 is grey, 3 RGB. Default: as many as mean has values."
    )
    mean: Annotated[tuple[float, ...], Field(min_length=1)] | None = Field(
        None,
        description="Mean of each channel that is subtracted, in 0 to 1 or in value_range. "
        "Default: as the weights define; 0 with value_range.",
    )
    std: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = Field(
        None,
        description="Standard deviation of each channel to divide by, in 0 to 1 or in value_range. "
        "Default: as the weights define; 1 with value_range.",
    )
    value_range: tuple[float, float] | None = Field(
        None, description="Values [low, high] of black and white, instead of 0 and 1, before mean and std. Default: as the weights define."
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
        self._check_channels()
        return self

    def _check_channels(self) -> None:
        """Refuse numbers of values that differ from channel to channel."""
        for name in ("channels", "mean", "std"):
            value = getattr(self, name)
            count = value if name == "channels" or value is None else len(value)
            for other in ("mean", "std"):
                values = getattr(self, other)
                if count is not None and values is not None and len(values) != count:
                    raise ValueError(f"classifier.{other} has {len(values)} values and {name} {count}: one value per channel is needed")

    def identity(self) -> dict[str, Any]:
        """Return the keys that determine the classifier.

        Keys that an earlier version did not have enter only where they are set, so that a configuration keeps its hash.
        """
        keys = self.model_dump(mode="json")
        return {key: value for key, value in keys.items() if key not in _ADDED_KEYS or value is not None}


def _accept(config: ClassifierConfig) -> None:
    """Accept every combination of keys."""


@dataclass(frozen=True)
class ClassifierSource:
    """An entry in the registry of classifier sources.

    Attributes:
        id: the value of `classifier.source`.
        load: returns the classifier on the CPU, given the configuration, its classes (names, their number or None, read from the
            file if the configuration names one) and the seed of random weights; raises ValueError, ImportError or OSError.
        required: the keys of `SOURCE_KEYS` that must be set.
        optional: the keys of `SOURCE_KEYS` that may be set; all others are refused.
        check: raises a ValueError for keys that exclude or need each other.
    """

    id: str
    load: Callable[[ClassifierConfig, Classes, int], Classifier]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    check: Callable[[ClassifierConfig], None] = _accept


def _problem_type(config: ClassifierConfig) -> dict[str, Any]:
    """Return the argument `problem_type`, on which the number of logits depends."""
    return {} if config.problem_type is None else {"problem_type": config.problem_type}


def _load_torchvision(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return Classifier.from_torchvision(config.arch or "", config.weights, seed=seed)


def _load_checkpoint(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    known = classes if config.arch else None
    return Classifier.from_checkpoint(config.path or "", config.arch, known, arguments=config.arguments, **_problem_type(config))


def _load_exported(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return Classifier.from_exported(config.path or "")


def _load_import(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return call_factory(config.factory or "", config.arguments or {}, seed)


def _load_timm(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return Classifier.from_timm(
        config.arch or "", config.weights, config.path, classes, seed=seed, arguments=config.arguments, **_problem_type(config)
    )


def _load_transformers(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    # A checkpoint without the settings of a processor needs these keys instead, which `configure_preprocess` sets.
    replaced = config.resize is not None and config.mean is not None and config.std is not None
    source = Path(config.path) if config.path else config.arch or ""
    return Classifier.from_transformers(source, Preprocess() if replaced else None)


def _check_checkpoint(config: ClassifierConfig) -> None:
    if config.arch and not config.classes:
        raise ValueError("classifier.classes is missing: a state dict needs its classes, names or a number, beside arch")
    if config.arch and config.train:
        raise ValueError("classifier.train makes a trained folder, and classifier.arch is of a state dict: remove one")
    if config.arguments and not config.arch:
        raise ValueError("classifier.arguments is for the builder of a state dict's arch, and a trained folder has its own: remove it")


def _check_timm(config: ClassifierConfig) -> None:
    if config.path and config.weights:
        raise ValueError("classifier.weights and classifier.path are two sources of weights: remove one")


def _check_transformers(config: ClassifierConfig) -> None:
    if (config.path is None) == (config.arch is None):
        raise ValueError("classifier: a classifier from transformers needs path, a local folder, or arch, a repository ORG/NAME of the hub")


# In the order of the documentation; installed packages add theirs by the entry points `hdm.classifiers`.
CLASSIFIER_SOURCES: Registry[ClassifierSource] = Registry(
    "hdm.classifiers",
    ClassifierSource,
    (
        ClassifierSource("torchvision", _load_torchvision, required=("arch",), optional=("weights",)),
        ClassifierSource(
            "checkpoint", _load_checkpoint, required=("path",), optional=("arch", "train", "arguments"), check=_check_checkpoint
        ),
        ClassifierSource("exported", _load_exported, required=("path",)),
        ClassifierSource("import", _load_import, required=("factory",), optional=("arguments",)),
        ClassifierSource("timm", _load_timm, required=("arch",), optional=("weights", "path", "arguments"), check=_check_timm),
        ClassifierSource("transformers", _load_transformers, optional=("arch", "path"), check=_check_transformers),
    ),
)
