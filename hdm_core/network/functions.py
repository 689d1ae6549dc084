"""Names of torch's functions, as a `TorchFunctionMode` sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Elementwise functions by their names in torch, without the underscores that mark in-place and internal variants.
# fmt: off
ELEMENTWISE = frozenset((
    "relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "clip", "threshold", "leaky_relu",
    "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "sigmoid", "hardsigmoid",
    "hardswish", "log_sigmoid", "logsigmoid", "tanh", "tanhshrink", "hardshrink", "softshrink",
))
# fmt: on


def input_first(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a call's arguments with `input` as the first positional one."""
    named = dict(kwargs or {})
    return ((named.pop("input"),), named) if not args and "input" in named else (args, named)


def function_name(function: Callable[..., Any]) -> str:
    """Return a function's name without an overload and the underscores of variants."""
    return getattr(function, "__name__", "").partition(".")[0].strip("_")
