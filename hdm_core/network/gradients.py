"""Gradients of logits, with one clear error where none can be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hdm_core.network.functions import function_name

# Parts of torch's messages for operations that have no derivative, such as those on quantised tensors.
_NOT_DIFFERENTIABLE = ("does not require grad", "derivative for", "not implemented for", "not differentiable", "Inference tensors")

_CHECKPOINTED = (
    "a part of the network runs in torch.utils.checkpoint, through which this gradient cannot be taken: "
    "switch gradient checkpointing off, such as by network.set_grad_checkpointing(False)"
)
_OVERWRITTEN = (
    "torch cannot differentiate the network: an operation in place overwrites an activation that the gradient needs, "
    "such as the second of two ReLUs in a row; build it with inplace=False"
)


def refuses_gradient(error: RuntimeError) -> bool:
    """Return whether an error is that of `numpy()` for a tensor with a gradient.

    A network outside torch, such as one of ONNX Runtime, converts its input so.
    """
    return "numpy() on Tensor that requires grad" in str(error)


class NoGradientError(ValueError):
    """Error for logits without all of their gradient where it is needed.

    Args:
        place: where no gradient arrives, such as "the images".
        amount: "no gradient" or "only a part of the gradient".
    """

    def __init__(self, place: str, amount: str = "no gradient") -> None:
        super().__init__(
            f"{amount} of the network's logits reaches {place}: a part of it runs under torch.no_grad() or in a checkpoint with "
            "use_reentrant=True, detaches its input, is quantised or outside torch; remove that part, or use a method without gradients, "
            "such as rise, score_cam or eigen_cam"
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
        ValueError: if a part of the network runs in a checkpoint, or overwrites an activation that the gradient needs.
    """
    if not score.requires_grad:
        raise NoGradientError(place)
    try:
        gradients = list(torch.autograd.grad(score, tensors, allow_unused=True))
    except RuntimeError as error:
        if any(words in str(error) for words in _NOT_DIFFERENTIABLE):
            raise NoGradientError(place) from error
        # With use_reentrant=True it refuses all gradients but those of `backward()`. Otherwise it runs a part again in the backward pass,
        # where no `TorchFunctionMode` of the forward pass is active.
        if "torch.utils.checkpoint" in str(error):
            raise ValueError(_CHECKPOINTED) from error
        if "inplace operation" in str(error):
            raise ValueError(_OVERWRITTEN) from error
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


class DetachRecorder(TorchFunctionMode):
    """Context that notices branches of a network that lose their gradient.

    A branch under torch.no_grad() or behind `detach()` beside one with a gradient gives a gradient of the wrong value and no error. Values
    that choose or count, such as masks and indices, need no gradient and are ignored, and so is a detached copy that nothing uses, such as
    that of a hook for logging.

    Attributes:
        loses_part: whether an activation with a gradient was combined with one that lost its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loses_part = False
        self._detached: dict[int, Tensor] = {}  # the tensors too: an id may be used again once its tensor is gone

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = list(_tensors((args, kwargs)))
        active = any(each.requires_grad for each in inputs)
        detached = any(id(each) in self._detached and not each.requires_grad for each in inputs)
        result = func(*args, **(kwargs or {}))
        name = function_name(func)
        if name.endswith("_like") or name.startswith("new_"):
            return result
        outputs = [each for each in _tensors(result) if each.is_floating_point()]
        if active and detached and (result is None or any(each.requires_grad for each in outputs)):
            self.loses_part = True
        if active or detached:
            self._detached.update((id(each), each) for each in outputs if not each.requires_grad)
        return result


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _tensors(each)
