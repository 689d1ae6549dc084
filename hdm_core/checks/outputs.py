"""Checks of a network's output: logits, or something else of their shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hdm_core.checks.finding import Finding
from hdm_core.network.logits import ends_in_sigmoid, not_logits
from hdm_core.problem_type import ProblemType

_SUM = 1e-4  # of exp(log-probabilities) from 1
_AFTER_SIGMOID = "the network ends in a sigmoid, and another would be taken: return its logits"
_SOFTMAX_OF_SIGMOID = (
    "the network ends in a sigmoid for every class, and a softmax over independent probabilities is none: return its logits, and set "
    "problem_type to multi_label_classification"
)
_EXCLUSIVE = "the network returns log-probabilities of classes that exclude each other: set problem_type to single_label_classification"
_LOW, _HIGH = 0.05, 0.5  # values within [0, 1] that reach below and above these are probably probabilities


def check_output(
    logits: Tensor, differentiable: Tensor, loud: Callable[[], Tensor], problem_type: ProblemType = "single_label_classification"
) -> Finding:
    """Judge the logits (N, classes) of N photographs and noise images.

    Args:
        differentiable: (1, classes), the logits of one image with their graph.
        loud: returns the logits of an image far beyond any photograph, which leave [0, 1] unless they cannot.
    """
    dtype = str(logits.dtype).removeprefix("torch.")
    reason = not_logits(logits, problem_type)
    if reason is not None:
        return Finding("output", "refused", reason)
    if problem_type == "regression":
        return Finding("output", "ok", f"{logits.shape[1]} outputs of a regression, {dtype}")
    exclusive = problem_type == "single_label_classification"
    classes = f"{logits.shape[1]} {'classes' if exclusive else 'labels'}, {dtype}"
    if ends_in_sigmoid(differentiable):
        return Finding("output", "refused", _SOFTMAX_OF_SIGMOID if exclusive else _AFTER_SIGMOID)
    values = logits.float()
    if bool((values <= 0).all() & ((values.double().exp().sum(1) - 1).abs() < _SUM).all()):
        if exclusive:
            return Finding("output", "handled", f"{classes}; log-probabilities: their softmax gives the probabilities")
        return Finding("output", "refused", _EXCLUSIVE)
    # Of two logits one is often a constant 0; those of a yes/no network are z and -z.
    if logits.shape[1] > 2 and 0 <= values.amin() < _LOW and _HIGH < values.amax() <= 1:
        extreme = loud()
        if extreme.amin() < 0 or extreme.amax() > 1:
            return Finding("output", "ok", f"{classes}, logits")
        return Finding("output", "doubtful", f"{classes}; all values lie in [0, 1]: if these are probabilities, return logits instead")
    return Finding("output", "ok", f"{classes}, logits")


def check_values(logits: Tensor) -> Finding | None:
    """Judge whether logits (N, classes) are finite and differ; None if so.

    Each map's own status, nan or flat, shows it too.
    """
    values = logits.float()
    if not values.isfinite().any():
        return Finding("values", "refused", "every logit of photographs and of noise is NaN or infinite: the weights are damaged")
    if not values.isfinite().all():
        return Finding("values", "doubtful", "some logits are NaN or infinite; maps of such images have the status nan")
    if spread(values) == 0:
        return Finding("values", "doubtful", "the logits are the same for all photographs and noise, so that maps are flat")
    return None


def spread(logits: Tensor) -> Tensor:
    """Return the largest difference of a class's logit between images, ()."""
    values = logits.double().nan_to_num(0, 0, 0)
    return (values.amax(0) - values.amin(0)).amax()


def disagreement(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two (N, classes), in units of the tolerance.

    Tolerated are 1% of the spread of the logits between images, and rounding: 100 steps of the data type at the largest logit.
    """
    eps = torch.finfo(expected.dtype).eps
    a, b = actual.double().nan_to_num(0, 0, 0), expected.double().nan_to_num(0, 0, 0)
    tolerance = 1e-2 * spread(expected) + 100 * eps * b.abs().amax()
    return float((a - b).abs().amax() / tolerance.clamp(min=torch.finfo(torch.float64).tiny))
