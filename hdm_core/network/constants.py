"""Constants that a network adds to what is linear in its activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hdm_core.network.functions import ELEMENTWISE, function_name, input_first

Origin = Literal["layer", "head", "function"]

_CONVOLUTIONS = frozenset(f"conv{transposed}{axes}d" for transposed in ("", "_transpose") for axes in (1, 2, 3))
_SUMS = frozenset(("add", "iadd", "radd", "sub", "subtract", "isub", "rsub"))
_PRODUCTS = frozenset(("mul", "multiply", "imul", "rmul"))
# f(x) = f'(x) x: these add no constant.
_HOMOGENEOUS = frozenset(("relu", "leaky_relu", "prelu"))


@dataclass(frozen=True)
class Constant:
    """Constant part of a function's output y in the linear approximation.

    Attributes:
        output: y, a tensor of the graph.
        value: y minus what is linear in the input, broadcastable to y.
        origin: "layer" for a bias per channel of maps (B, K, h, w), "head" for any other bias, "function" for what is no bias: the constant
            f(x) - f'(x) x of an elementwise function, -a b of a product of two activations, or a number that is added.
    """

    output: Tensor
    value: Tensor
    origin: Origin


class ConstantRecorder(TorchFunctionMode):
    """Context that records the constants of the functions called in it.

    It intercepts functions, not modules: a bias is found whoever adds it, as a module, a subclass with an activation inside, a function, or
    an in-place sum. Values and gradients do not change. Functions that it does not know, such as layer normalisation and attention, are
    not recorded: whether all constants were found follows from the sum of all terms alone.

    Attributes:
        constants: in order of the calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.constants: list[Constant] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = input_first(args, kwargs)
        name = function_name(func)
        activations = [each for each in args if isinstance(each, Tensor) and each.requires_grad]
        if not activations or not torch.is_grad_enabled():  # gradients are off in the forward of an autograd.Function, too
            return func(*args, **kwargs)
        if name in _CONVOLUTIONS or name == "linear":
            bias = args[2] if len(args) > 2 else kwargs.get("bias")
            if bias is None or bias.requires_grad:
                return func(*args, **kwargs)
            maps = name != "linear" and args[0].ndim == 4
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            shaped = bias if name == "linear" else bias.reshape(-1, *[1] * (weight.ndim - 2))
            return self._record(func(*args, **kwargs), shaped, "layer" if maps else "head")
        if name == "batch_norm":
            constant = _constant_of_normalisation(func, args, kwargs)
            return self._record(func(*args, **kwargs), constant, "layer" if args[0].ndim == 4 else "head")
        if name in _SUMS:
            return self._record_sum(func, args, kwargs)
        if name in _PRODUCTS and len(activations) > 1:
            return self._record_in_place(func, args, kwargs, lambda y: -y, "function")
        if name in ELEMENTWISE - _HOMOGENEOUS and args[0] is activations[0]:
            constant = _constant_of_elementwise(lambda x: func(x, *args[1:], **kwargs), args[0])
            return self._record_in_place(func, args, kwargs, lambda y: constant, "function")
        return func(*args, **kwargs)

    def _record_sum(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record what a sum adds to its activations."""
        others = [each for each in args[:2] if not (isinstance(each, Tensor) and each.requires_grad)]
        other = kwargs.get("other")
        if not others and (other is None or (isinstance(other, Tensor) and other.requires_grad)):
            return func(*args, **kwargs)
        constant = func(*(_without_activations(each) for each in args), **{key: _without_activations(each) for key, each in kwargs.items()})
        added = others[0] if others else other
        per_channel = isinstance(added, Tensor) and constant.ndim == 4 and added.ndim >= 3 and added.shape[-2:] == (1, 1)
        origin: Origin = "layer" if per_channel else "head" if isinstance(added, Tensor) else "function"
        return self._record_in_place(func, args, kwargs, lambda y: constant, origin)

    def _record(self, y: Tensor, constant: Tensor, origin: Origin) -> Tensor:
        """Record an output; return a copy, which the network may overwrite."""
        self.constants.append(Constant(y, constant, origin))
        return y.clone()

    def _record_in_place(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], constant: Callable[[Tensor], Tensor], origin: Origin
    ) -> Tensor:
        """Call a function that may overwrite its first argument, and record its output."""
        first = args[0]
        argument = first.clone() if isinstance(first, Tensor) else first
        y: Tensor = func(argument, *args[1:], **kwargs)
        copy = self._record(y, constant(y.detach()), origin)
        return first.copy_(y) if y is argument else copy


def _without_activations(value: Any) -> Any:
    """Return zeros for an activation, and a copy of any other tensor."""
    if not isinstance(value, Tensor):
        return value
    return torch.zeros_like(value) if value.requires_grad else value.clone()


@torch.no_grad()
def _constant_of_normalisation(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the output for zeros: beta - mu gamma / sigma, (1, K, 1, ...).

    Raises:
        ValueError: if the statistics are those of the batch.
    """
    if args[5] if len(args) > 5 else kwargs.get("training", False):
        raise ValueError("full_grad needs the running statistics of batch normalisation: without them a layer has no fixed bias")
    x = args[0]
    constant: Tensor = func(x.new_zeros(1, x.shape[1], *[1] * (x.ndim - 2)), *args[1:], **kwargs)
    return constant


@torch.enable_grad()
def _constant_of_elementwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return f(x) - f'(x) x, of the shape of x."""
    leaf = x.detach().requires_grad_()
    y = function(leaf.clone())  # an in-place function overwrites it
    (slope,) = torch.autograd.grad(y.sum(), leaf)
    return y.detach() - slope * leaf.detach()
