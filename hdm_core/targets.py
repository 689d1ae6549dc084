"""Targets as users give them: numbers or names of classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hdm_core.class_names import class_numbers
from hdm_core.classifier import Classifier
from hdm_core.network.logits import resolve_targets
from hdm_core.settings import did_you_mean

# The class to explain: one for all images or one per image, by number or name; None is the predicted class.
Targets = int | str | Sequence[int] | Sequence[str] | Tensor | None

RUNNER_UP = "runner_up"  # as a contrast: the likeliest class beside the target


def one_target(target: Targets, targets: Targets) -> Targets:
    """Return the one of both that was given.

    Raises:
        ValueError: if both were.
    """
    if target is not None and targets is not None:
        raise ValueError("target= and targets= are two names of one argument: give one of them")
    return targets if target is None else target


def target_numbers(targets: Targets, classifier: Classifier) -> Any:
    """Replace names of classes by their numbers; all else is returned as it is.

    Raises:
        ValueError: if the classifier has no names, or no class or several of this name.
    """
    if isinstance(targets, str):
        return _number(targets, classifier)
    if isinstance(targets, np.ndarray) and targets.dtype.kind in "UO":
        targets = targets.tolist()
        if not isinstance(targets, list):
            return target_numbers(targets, classifier)
    if isinstance(targets, Sequence):
        return [_number(target, classifier) if isinstance(target, str) else target for target in targets]
    return targets


def resolve_contrasts(classifier: Classifier, logits: Tensor, classes: Tensor, contrast: Targets) -> Tensor:
    """Return the class that each image's target is compared with, (B,) int64.

    Args:
        logits: (B, classes).
        classes: the targets, (B,) int64.
        contrast: as targets, or "runner_up" for the class with the highest logit beside the target.

    Raises:
        ValueError: as `resolve_targets`, or if a class would be compared with itself.
    """
    if isinstance(contrast, str) and contrast == RUNNER_UP:
        if logits.shape[1] < 2:
            raise ValueError(f"{classifier.name} has one output, and no runner-up")
        return logits.scatter(1, classes[:, None], -math.inf).argmax(1)
    others = resolve_targets(logits, target_numbers(contrast, classifier))
    same = classes[others == classes]
    if same.numel():
        name = classifier.class_name(int(same[0]))
        raise ValueError(f"class {name} cannot be compared with itself: give another contrast, such as {RUNNER_UP}")
    return others


def contrasting(classifier: Classifier, classes: Tensor, contrasts: Tensor) -> tuple[Classifier, Tensor]:
    """Return the classifier of the differences, and each image's class of it.

    Args:
        classes: a, (B,) int64.
        contrasts: b, (B,) int64.
    """
    pairs = [(a, b) for a, b in torch.stack([classes, contrasts.to(classes)], 1).tolist()]
    unique = list(dict.fromkeys(pairs))
    return classifier.contrasting(unique), classes.new_tensor([unique.index(pair) for pair in pairs])


def _number(name: str, classifier: Classifier) -> int:
    names = classifier.class_names
    if names is None:
        raise ValueError(f"target {name!r}: this classifier has no class names; give the number of the class")
    numbers = class_numbers(name, names)
    if not numbers:
        raise ValueError(f"the classifier has no class {name!r}{did_you_mean(name, list(names))}")
    if len(numbers) > 1:
        raise ValueError(f"the classifier has {len(numbers)} classes {name!r}; give the number of the class")
    return numbers[0]
