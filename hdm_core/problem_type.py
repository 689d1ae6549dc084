"""Problem types: the meaning of a network's outputs, in Hugging Face's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
T = TypeVar("T")

PROBLEM_TYPES: tuple[str, ...] = get_args(ProblemType)


def check_problem_type(problem_type: str) -> None:
    """Check that a problem type is one of Hugging Face's.

    Raises:
        ValueError: if it is not.
    """
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"unknown problem_type {problem_type!r}: choose from {', '.join(PROBLEM_TYPES)}")


def probabilities(logits: Tensor, problem_type: ProblemType) -> Tensor:
    """Return the probability of every class, (B, classes) for logits (B, classes).

    It is the softmax over classes that exclude each other, or the sigmoid of each of several labels. The outputs of a regression are no
    probabilities: they are returned unchanged.
    """
    match problem_type:
        case "single_label_classification":
            return logits.softmax(1)
        case "multi_label_classification":
            return logits.sigmoid()
        case "regression":
            return logits


def log_odds(logits: Tensor, targets: Tensor, problem_type: ProblemType) -> Tensor:
    """Return log(p / (1 - p)) of the targets' probabilities p, (B,).

    Of classes that exclude each other it is the logit minus the logsumexp of the others, of a label its logit. The output of a regression
    is returned unchanged.

    Args:
        logits: (B, classes).
        targets: (B,) int64.
    """
    own = logits.gather(1, targets[:, None])[:, 0]
    if problem_type != "single_label_classification":
        return own
    others: Tensor = logits.scatter(1, targets[:, None], -torch.inf)
    return own - others.logsumexp(1)


def answer_names(names: Sequence[str] | None, problem_type: ProblemType) -> tuple[str, ...] | None:
    """Return the names of a network's classes, or of both answers of a yes/no one.

    The single logit of a yes/no network is explained as two classes, see `YesNo`: with the single name X they are "not X" and X.
    """
    if names is not None and len(names) == 1 and problem_type == "multi_label_classification":
        return f"not {names[0]}", names[0]
    return None if names is None else tuple(names)


def load_with_logits(load: Callable[[Any], T], classes: int | tuple[str, ...] | None, problem_type: ProblemType) -> T:
    """Load weights with as many logits as classes, or with the one of two answers.

    Args:
        load: called with the number of logits; raises a ValueError where the weights have another number.
        classes: names or number; with two names a yes/no network has two labels or, if these do not fit, a single logit.

    Raises:
        ValueError: if the weights do not fit.
    """
    count = len(classes) if isinstance(classes, tuple) else classes
    try:
        return load(count)
    except ValueError:
        if not isinstance(classes, tuple) or count != 2 or problem_type != "multi_label_classification":
            raise
        with suppress(ValueError):
            return load(1)
        raise
