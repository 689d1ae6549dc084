"""Load the configured classifier, and identify its preprocessing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode

from hdm_core import Classifier, Preprocess
from hdm_core.photograph import Photograph
from hdm_core.sources.state_dict import read_classes
from pipeline.classifiers.sources import CLASSIFIER_SOURCES, ClassifierConfig
from pipeline.errors import InputError, one_line

# Settings of the preprocessing that earlier versions did not have: they are part of an identity where they are used.
_ADDED = ("pad", "fill", "value_range", "crop_rounding")


def load_classifier(config: ClassifierConfig, seed: int) -> Classifier:
    """Load the classifier on the CPU with its preprocessing and class names.

    Args:
        seed: seed of random weights.

    Raises:
        InputError: if there is no such network, its weights are not available or belong to another network, or they are not float32.
    """
    try:
        classes = None if config.classes is None else read_classes(config.classes)
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"classifier.classes: {one_line(error)}") from None
    try:
        classifier = CLASSIFIER_SOURCES[config.source].load(config, classes, seed)
    except (ValueError, ImportError) as error:
        raise InputError(f"classifier: {one_line(error)}") from None
    except OSError as error:
        what = config.path or (f"the weights {config.weights} of {config.arch}" if config.weights else config.arch)
        raise InputError(f"classifier: {what} cannot be loaded ({one_line(error)})") from None
    if classifier.dtype not in (None, torch.float32):
        raise InputError(f"classifier: {classifier.name} has weights of {classifier.dtype}, and images are float32: convert it by float()")
    classifier = classifier.interpreted(classes if isinstance(classes, tuple) else None, config.output, config.problem_type)
    try:
        classifier.preprocess = configure_preprocess(classifier.preprocess or Preprocess(), config)
    except ValueError as error:
        raise InputError(f"classifier: {one_line(error)}") from None
    return classifier


def configure_preprocess(preprocess: Preprocess, config: ClassifierConfig) -> Preprocess:
    """Return a preprocessing with the keys that a configuration sets.

    Args:
        preprocess: of the weights.

    Raises:
        ValueError: if the keys do not fit the preprocessing, or each other.
    """
    keys = {"resize", "crop", "pad", "fill", "mean", "std", "value_range"}
    changes: dict[str, Any] = config.model_dump(include=keys, exclude_none=True)
    if config.interpolation is not None:
        changes["interpolation"] = InterpolationMode(config.interpolation)
    if config.pad and not preprocess.pad:
        changes.setdefault("resize", preprocess.size)
    if config.pad or isinstance(config.resize, tuple):
        changes.setdefault("crop", None)
    channels = config.channels or len(config.mean or config.std or preprocess.mean)
    if config.value_range is not None:
        changes = {"mean": (0.0,) * channels, "std": (1.0,) * channels, **changes}
    elif channels != preprocess.channels and not (config.mean and config.std):
        raise ValueError(
            f"images of {channels} channel{'' if channels == 1 else 's'} need mean and std, and those of the weights are for "
            f"{preprocess.channels}: write mean: {[0.0] * channels} and std: {[1.0] * channels} for values in 0 to 1, or value_range"
        )
    return replace(preprocess, **changes)


def check_class_names(config: ClassifierConfig, classifier: Classifier, classes: int) -> None:
    """Compare the number of logits with the names, or the number, of classes.

    Raises:
        InputError: if they differ.
    """
    named = config.classes if isinstance(config.classes, int) else len(classifier.class_names or ()) or classes
    if named == 1 and classifier.problem_type == "multi_label_classification":
        named = 2  # no and yes
    if named != classes:
        raise InputError(f"classifier: {classifier.name} answers with {classes} classes, and {named} are named; set classifier.classes")


def weights_digest(classifier: Classifier) -> str:
    """Return the digest of a classifier's weights.

    Raises:
        InputError: if its state has none.
    """
    try:
        return classifier.weights_digest()
    except ValueError as error:
        raise InputError(f"classifier: {classifier.name}: {one_line(error)}") from None


def preprocess_of(classifier: Classifier) -> Preprocess:
    """Return the preprocessing of a classifier, which `load_classifier` always sets.

    Raises:
        ValueError: if it has none, so that no map could be aligned with its photograph.
    """
    if classifier.preprocess is None:
        raise ValueError(f"{classifier.name} has no preprocess")
    return classifier.preprocess


def own_preparation(classifier: Classifier) -> Callable[[Photograph], Tensor] | None:
    """Return the preparation of one image by a subclass that overrides `prepare`.

    It is None for other classifiers, whose `prepare` is the preprocessing.
    """
    return None if type(classifier).prepare is Classifier.prepare else lambda image: classifier.prepare([image])[0]


def preprocess_identity(classifier: Classifier) -> dict[str, Any]:
    """Return the identity of a classifier's preprocessing and class names.

    Besides the weights, these determine the classifier's outputs. The class names enter as a checksum, and `transform_input` where it is
    on: torchvision's Inception and GoogLeNet then normalise their input once more. So do the `output` that was named, and a `problem_type`
    that says what the outputs mean.
    """
    preprocess = preprocess_of(classifier)
    names = json.dumps(classifier.class_names).encode()
    transformed = {"transform_input": True} if getattr(classifier.module, "transform_input", False) is True else {}
    exclusive = classifier.problem_type == "single_label_classification"  # the only type of earlier versions
    return {
        "resize": _as_json(preprocess.resize),
        "crop": _as_json(preprocess.crop),
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation.value,
        "classes_sha256": hashlib.sha256(names).hexdigest(),
        **transformed,
        **({} if classifier.output is None else {"output": classifier.output}),
        **({} if exclusive else {"problem_type": classifier.problem_type}),
        **{name: _as_json(getattr(preprocess, name)) for name in _ADDED if name not in preprocess.unused},
    }


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
