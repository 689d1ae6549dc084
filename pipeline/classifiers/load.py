"""The configuration's classifier, loaded."""

from __future__ import annotations

import hashlib
import json
import pkgutil
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torchvision.transforms import InterpolationMode

from hdm_core import Classifier, Preprocess
from hdm_core.network.logits import class_logits
from hdm_core.sources.state_dict import read_classes
from pipeline.config.schema import ClassifierConfig
from pipeline.errors import InputError, one_line


def load_classifier(config: ClassifierConfig, seed: int) -> Classifier:
    """The network on the CPU, with its preprocessing and its classes' names.

    Raises:
        InputError: if there is no such network, or its weights cannot be had or are not its own.
    """
    try:
        known = None if config.classes is None else read_classes(config.classes)
    except (ValueError, OSError) as error:
        raise InputError(f"classifier.classes: {one_line(error)}") from None
    try:
        classifier = _load(config, known, seed)
    except (ValueError, ImportError) as error:
        raise InputError(f"classifier: {one_line(error)}") from None
    except OSError as error:
        what = config.path or f"the weights {config.weights} of {config.arch}"
        raise InputError(f"classifier: {what} cannot be had ({one_line(error)})") from None
    if isinstance(known, tuple):
        classifier.class_names = known
    given: dict[str, Any] = config.model_dump(include={"resize", "crop", "mean", "std"}, exclude_none=True)
    if config.interpolation is not None:
        given["interpolation"] = InterpolationMode(config.interpolation)
    classifier.preprocess = replace(classifier.preprocess or Preprocess(), **given)
    return classifier


def count_classes(config: ClassifierConfig, classifier: Classifier) -> int:
    """How many classes the network answers with, by showing it one blank image: what fails on it would fail on every image.

    Raises:
        InputError: if the network does not take images of the size, or has another number of classes than are named.
    """
    side = preprocess_of(classifier).crop
    try:
        with classifier.frozen() as network, torch.no_grad():
            classes = class_logits(network, torch.zeros(1, 3, side, side, device=classifier.device)).shape[1]
    except Exception as error:  # whatever the network's forward raises
        raise InputError(f"classifier: {classifier.name} does not take images of {side} x {side} ({one_line(error)})") from None
    named = config.classes if isinstance(config.classes, int) else len(classifier.class_names or ()) or classes
    if named != classes:
        raise InputError(f"classifier: {classifier.name} answers with {classes} classes, and {named} are named; set classifier.classes")
    return classes


def preprocess_of(classifier: Classifier) -> Preprocess:
    """The preprocessing of a classifier that `load_classifier` made.

    Raises:
        ValueError: if it has none, so that no map could be laid on a photograph.
    """
    if classifier.preprocess is None:
        raise ValueError(f"{classifier.name} has no preprocess")
    return classifier.preprocess


def preprocess_identity(classifier: Classifier) -> dict[str, Any]:
    """What beside its weights says what a classifier answers: how images are prepared for it, and a checksum of its classes' names."""
    view = preprocess_of(classifier)
    names = json.dumps(classifier.class_names).encode()
    return {
        "resize": view.resize,
        "crop": view.crop,
        "mean": list(view.mean),
        "std": list(view.std),
        "interpolation": view.interpolation.value,
        "classes_sha256": hashlib.sha256(names).hexdigest(),
    }


def _load(config: ClassifierConfig, classes: int | tuple[str, ...] | None, seed: int) -> Classifier:
    arch, path = config.arch or "", config.path or ""
    if config.source == "torchvision":
        return Classifier.from_torchvision(arch, config.weights, seed=seed)
    if config.source == "checkpoint":
        return Classifier.from_checkpoint(path, config.arch, classes if config.arch else None)
    if config.source == "exported":
        return Classifier.from_exported(path)
    if config.source == "timm":
        return Classifier.from_timm(arch, config.weights, config.path, classes, seed=seed)
    return _call(config.factory or "", config.arguments or {}, seed)


def _call(factory: str, arguments: dict[str, Any], seed: int) -> Classifier:
    """What the user's function gives: a network, or a classifier with its own preprocessing and names."""
    try:
        function = pkgutil.resolve_name(factory)
    except Exception as error:  # whatever the user's module raises
        hint = "; every worker must be able to import it: install it, or set PYTHONPATH"
        raise InputError(f"classifier: {factory} cannot be imported ({one_line(error)}){hint}") from None
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = function(**arguments)
    except Exception as error:
        raise InputError(f"classifier: {factory} failed ({type(error).__name__}: {one_line(error)})") from None
    if isinstance(made, Classifier):
        return made
    if not isinstance(made, nn.Module):
        raise InputError(f"classifier: {factory} gave a {type(made).__name__}, and should give a torch.nn.Module or a hdm_core.Classifier")
    return Classifier(made, name=factory)
