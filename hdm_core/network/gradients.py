"""Gradients of logits, with one clear error where none can be computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Parts of torch's messages for operations that have no derivative, such as those on quantised tensors.
_NOT_DIFFERENTIABLE = ("does not require grad", "derivative for", "not implemented for", "not differentiable", "Inference tensors")


class NoGradientError(ValueError):
    """Error for a network whose logits have no gradient at the place that needs one."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"no gradient of the network's logits reaches {place}: a part of it runs under torch.no_grad(), detaches its input or is "
            "quantised; remove that part, or use a method without gradients, such as rise, score_cam or eigen_cam"
        )


def gradients_of(score: Tensor, tensors: Sequence[Tensor], place: str = "the images") -> list[Tensor]:
    """Return the gradient of a score to each tensor.

    It is zero for tensors beyond the first that the score does not depend on.

    Args:
        score: a sum of logits.
        tensors: tensors of the score's graph.
        place: name of the first tensor, for the error.

    Raises:
        NoGradientError: if the score has no gradient to the first tensor.
    """
    if not score.requires_grad:
        raise NoGradientError(place)
    try:
        gradients = list(torch.autograd.grad(score, tensors, allow_unused=True))
    except RuntimeError as error:
        if any(words in str(error) for words in _NOT_DIFFERENTIABLE):
            raise NoGradientError(place) from error
        raise
    if gradients[0] is None:
        raise NoGradientError(place)
    return [torch.zeros_like(tensor) if gradient is None else gradient for tensor, gradient in zip(tensors, gradients, strict=True)]


def gradient_of(score: Tensor, tensor: Tensor, place: str = "the images") -> Tensor:
    """Return the gradient of a score to a tensor.

    Raises:
        NoGradientError: if the score has no gradient to the tensor.
    """
    return gradients_of(score, [tensor], place)[0]
