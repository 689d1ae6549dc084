"""Checked logits of a network, and the classes to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hdm_core.integers import as_integers
from hdm_core.network.outputs import OutputError, find_logits
from hdm_core.problem_type import ProblemType

Targets = int | Sequence[int] | Tensor | None

_GRAPH_NODES = 1000  # looked at behind the logits: a head per class may be concatenated

# Operations that move values and do not change them.
_RESHAPING = frozenset(
    (
        *("View", "UnsafeView", "Reshape", "ReshapeAlias", "Squeeze", "Unsqueeze", "Expand", "Clone", "ToCopy", "Alias", "AsStrided"),
        *("Cat", "Stack", "Split", "Unbind", "Slice", "Select", "Index", "Transpose", "T", "Permute"),
    )
)


def class_logits(network: Callable[[Tensor], object], images: Tensor) -> Tensor:
    """Run the network and check that it returns logits (B, classes).

    The logits may be in a tuple, list, dict or another object, see `find_logits`.

    Raises:
        OutputError: a TypeError, if the network does not return one tensor of that shape.
    """
    output = network(images)
    logits = output if isinstance(output, Tensor) else find_logits(output, len(images))[1]
    if logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        returned = f"a tensor of shape {tuple(logits.shape)}"
        if not logits.is_floating_point():
            returned += f" and type {logits.dtype}: return the numbers before argmax or rounding"
        raise OutputError(f"the network must return logits (B, classes) for images {tuple(images.shape)}; it returned {returned}")
    return logits


def not_logits(logits: Tensor, problem_type: ProblemType = "single_label_classification") -> str | None:
    """Return in one line why an output (B, classes) cannot be logits; None if it can.

    Refused are integers; of classes that exclude each other a single one, whose softmax is always 1; and of all classes rows that are
    probabilities already. A single row proves nothing: logits may sum to 1 by chance.

    Args:
        logits: of a yes/no network both answers, -z and z.
    """
    if not logits.is_floating_point():
        return f"the network returns {logits.dtype}, not logits: return the numbers before argmax or rounding"
    if problem_type == "regression":
        return None
    if logits.shape[1] == 1:
        return (
            "the network has one logit, and the softmax of a single class is 1 for every image: set problem_type to "
            "multi_label_classification if it is the logit of yes, or to regression if it is a number"
        )
    rows, finite = logits.detach().float(), logits.isfinite().all(1)
    tolerance = max(1e-5, 4 * torch.finfo(logits.dtype).eps)
    normalised = (rows >= 0).all(1) & ((rows.sum(1) - 1).abs() <= tolerance)
    if bool((finite.sum() >= 2) & (normalised | ~finite).all()):  # one wait for the device
        reason = "the network returns probabilities (every row is at least 0 and sums to 1), and "
        if problem_type == "single_label_classification":
            return f"{reason}their softmax would be taken once more: return the logits before its softmax"
        return (
            f"{reason}these exclude each other: return the logits before its softmax, and set problem_type to single_label_classification"
        )
    return None


def require_logits(logits: Tensor, problem_type: ProblemType) -> Tensor:
    """Return an output (B, classes) that can be logits.

    Raises:
        ValueError: if it cannot; see `not_logits`.
    """
    reason = not_logits(logits, problem_type)
    if reason is not None:
        raise ValueError(reason)
    return logits


def ends_in_sigmoid(logits: Tensor) -> bool:
    """Return whether the last operation that computes values is a sigmoid.

    Args:
        logits: with their graph; without one the result is False.
    """
    nodes, seen = [logits.grad_fn], 0
    while nodes and seen < _GRAPH_NODES:
        node, seen = nodes.pop(), seen + 1
        name = "" if node is None else node.name().rstrip("0123456789")
        if "igmoidBackward" in name and not name.startswith("Log"):
            return True
        if node is not None and name.removesuffix("Backward") in _RESHAPING:
            nodes += [parent for parent, _ in node.next_functions]
    return False


def resolve_targets(logits: Tensor, targets: Targets, problem_type: ProblemType = "single_label_classification") -> Tensor:
    """Return the target class of every image, (B,) int64; by default the argmax.

    The argmax is the only class that is predicted, the likeliest of several labels, or the answer of a yes/no network.

    Args:
        logits: (B, classes).
        targets: one class for all images, or one per image, as Python, numpy or torch write integers.

    Raises:
        ValueError: if the number of targets is not the number of images, a target is no class of the network, or there is none and the
            network is a regression with several outputs, of which none is predicted.
        TypeError: if targets are not integers.
    """
    batch, classes = logits.shape
    if targets is None:
        if problem_type == "regression" and classes > 1:
            raise ValueError(f"a regression predicts no class: name one of its {classes} outputs by target=")
        return logits.argmax(1)
    numbers = as_integers("targets", targets)
    if numbers.ndim == 0:
        numbers = numbers.expand(batch).clone()
    if numbers.shape != (batch,):
        raise ValueError(f"{batch} images need {batch} targets; the targets given have shape {tuple(numbers.shape)}")
    require_classes(numbers, classes)
    return numbers.to(logits.device)


def require_classes(targets: Tensor, classes: int) -> None:
    """Refuse targets that are none of a network's classes.

    Raises:
        ValueError: if one is.
    """
    wrong = targets[(targets < 0) | (targets >= classes)]
    if wrong.numel():
        raise ValueError(f"target {int(wrong[0])} is no class of this network: it has {classes}, numbered from 0")
