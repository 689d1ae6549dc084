"""Class randomisation: the map of another class of the same image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hdm_core.network.yes_no import YesNo
from hdm_core.sanity.subject import LeftOutError, Subject, Variant

CLASSES = "classes"


def other_classes(subject: Subject, logits: Tensor, seed: int) -> Iterator[Variant]:
    """Yield the subject with other classes to explain.

    A map that is the same for every class says where an object is, not why it is that class. The likeliest other class is the harder test;
    a random class is drawn from those that are neither.

    Args:
        logits: (B, classes), of the images.

    Raises:
        LeftOutError: if there is no other class to explain.
    """
    count = logits.shape[1]
    if subject.contrasts is not None:
        raise LeftOutError("the maps explain one class rather than another: their other class is not defined")
    if subject.classifier.problem_type == "regression":
        raise LeftOutError("a regression has no classes")
    if count < 2:
        raise LeftOutError("the network has one class")
    if isinstance(subject.classifier.module, YesNo) and count == 2:
        raise LeftOutError("the network has one logit: no is -yes, and absolute values of both are equal")
    second = logits.scatter(1, subject.targets[:, None], -math.inf).argmax(1)
    yield subject.variant(CLASSES, "likeliest other class", targets=second)
    if count > 2:
        generator = torch.Generator().manual_seed(seed)
        weights = torch.ones(len(logits), count)
        weights.scatter_(1, torch.stack([subject.targets, second], 1).cpu(), 0.0)
        third = torch.multinomial(weights, 1, generator=generator)[:, 0]
        yield subject.variant(CLASSES, "random other class", targets=third.to(subject.targets))
