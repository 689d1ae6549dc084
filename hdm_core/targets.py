"""Targets as users give them: numbers or names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hdm_core.class_names import class_numbers
from hdm_core.classifier import Classifier
from hdm_core.settings import did_you_mean

# The class to explain: one for all images or one per image, by number or name; None is the predicted class.
Targets = int | str | Sequence[int] | Sequence[str] | Tensor | None


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
