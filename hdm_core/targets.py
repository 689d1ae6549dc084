"""Targets as users give them: numbers or names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.settings import did_you_mean

# The class to explain: one for all images or one per image, by number or name; None leaves it to the network.
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
    if isinstance(targets, Sequence):
        return [_number(target, classifier) if isinstance(target, str) else target for target in targets]
    return targets


def _number(name: str, classifier: Classifier) -> int:
    names = classifier.class_names
    if names is None:
        raise ValueError(f"target {name!r}: this classifier has no class names; give the number of the class")
    if name not in names:
        raise ValueError(f"the classifier has no class {name!r}{did_you_mean(name, list(names))}")
    if (count := names.count(name)) > 1:
        raise ValueError(f"the classifier has {count} classes {name!r}; give the number of the class")
    return names.index(name)
