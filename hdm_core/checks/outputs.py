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
    exclusive = problem_type == "single_label_classification"
    # Before the sums of rows: sigmoids that are all 0 or 1 may sum to 1. Of a single one the number of logits says more.
    if problem_type != "regression" and logits.shape[1] > 1 and ends_in_sigmoid(differentiable):
        return Finding("output", "refused", _SOFTMAX_OF_SIGMOID if exclusive else _AFTER_SIGMOID)
    reason = not_logits(logits, problem_type)
    if reason is not None:
        return Finding("output", "refused", reason)
    if problem_type == "regression":
        return Finding("output", "ok", f"{logits.shape[1]} outputs of a regression, {dtype}")
    classes = f"{logits.shape[1]} {'classes' if exclusive else 'labels'}, {dtype}"
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
    differ = float(spread(values))
    if differ == 0:
        return Finding("values", "doubtful", "the logits are the same for all photographs and noise, so that maps are flat")
    if (_spread_per_class(logits) <= _rounding(logits)).all():
        text = f"the logits of photographs and of noise differ by only {differ:.2g}, which is rounding of {logits.dtype} at their size"
        return Finding("values", "refused", f"{text}: train the network, or return logits without a constant that outweighs them")
    return None


def spread(logits: Tensor) -> Tensor:
    """Return the largest difference of a class's logit between images, ()."""
    return _spread_per_class(logits).amax()


def agree(actual: Tensor, expected: Tensor, tolerance: float = 1e-2) -> bool:
    """Return whether two (N, classes) are the same but for a share of the spread.

    Rounding is tolerated, too; `check_values` holds it below the spread.

    Args:
        tolerance: share of the spread of the logits between images.
    """
    difference = (_finite(actual) - _finite(expected)).abs().amax(0)
    return bool((difference <= tolerance * spread(expected) + _rounding(expected)).all())


def _spread_per_class(logits: Tensor) -> Tensor:
    values = _finite(logits)
    return values.amax(0) - values.amin(0)


def _rounding(logits: Tensor) -> Tensor:
    """Return the difference that counts as rounding, per class, (classes,).

    It is 10 steps at the class's largest logit. Per class, since some networks give the classes that they exclude a logit such as -1e9.
    """
    return 10 * torch.finfo(logits.dtype).eps * _finite(logits).abs().amax(0)


def _finite(logits: Tensor) -> Tensor:
    return logits.double().nan_to_num(0, 0, 0)
