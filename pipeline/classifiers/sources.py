"""Registry of classifier sources: the keys and the loading function of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hdm_core import Classifier
from hdm_core.registry import Registry
from pipeline.classifiers.factory import call_factory

if TYPE_CHECKING:
    from pipeline.classifiers.config import ClassifierConfig

# Keys of ClassifierConfig that belong to some sources; all other keys are valid for every source.
SOURCE_KEYS = ("arch", "weights", "path", "train", "factory", "arguments")

Classes = int | tuple[str, ...] | None


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


def _load_torchvision(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return Classifier.from_torchvision(config.arch or "", config.weights, seed=seed)


def _load_checkpoint(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return Classifier.from_checkpoint(config.path or "", config.arch, classes if config.arch else None)


def _load_exported(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return Classifier.from_exported(config.path or "")


def _load_import(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return call_factory(config.factory or "", config.arguments or {}, seed)


def _load_timm(config: ClassifierConfig, classes: Classes, seed: int) -> Classifier:
    return Classifier.from_timm(config.arch or "", config.weights, config.path, classes, seed=seed)


def _check_checkpoint(config: ClassifierConfig) -> None:
    if config.arch and not config.classes:
        raise ValueError("classifier.classes is missing: a state dict needs its classes, names or a number, beside arch")
    if config.arch and config.train:
        raise ValueError("classifier.train makes a trained folder, and classifier.arch is of a state dict: remove one")


def _check_timm(config: ClassifierConfig) -> None:
    if config.path and config.weights:
        raise ValueError("classifier.weights and classifier.path are two sources of weights: remove one")


# In the order of the documentation; installed packages add theirs by the entry points `hdm.classifiers`.
CLASSIFIER_SOURCES: Registry[ClassifierSource] = Registry(
    "hdm.classifiers",
    ClassifierSource,
    (
        ClassifierSource("torchvision", _load_torchvision, required=("arch",), optional=("weights",)),
        ClassifierSource("checkpoint", _load_checkpoint, required=("path",), optional=("arch", "train"), check=_check_checkpoint),
        ClassifierSource("exported", _load_exported, required=("path",)),
        ClassifierSource("import", _load_import, required=("factory",), optional=("arguments",)),
        ClassifierSource("timm", _load_timm, required=("arch",), optional=("weights", "path"), check=_check_timm),
    ),
)
