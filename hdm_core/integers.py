"""Integers as Python, numpy and torch write them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor

_INT64 = torch.iinfo(torch.int64)


def as_integer(name: str, value: Any) -> int:
    """Return an integer argument as an int: 3, np.int64(3), torch.tensor(3).

    Raises:
        TypeError: if it is no integer; True and 3.0 are none.
    """
    is_flag = isinstance(value, (bool, np.bool_)) or (isinstance(value, Tensor) and value.dtype == torch.bool)
    try:
        if is_flag or getattr(value, "ndim", None):
            raise TypeError  # noqa: TRY301
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {_describe(value)}") from None


def as_integers(name: str, values: Any) -> Tensor:
    """Return an integer, or integers in any nesting, as an int64 tensor.

    A tensor stays on its device.

    Raises:
        TypeError: if one of them is no integer; True and 3.0 are none.
        ValueError: if one of them does not fit into 64 bits, or rows have different lengths.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        values = torch.from_numpy(np.array(values, np.int64))
    if isinstance(values, Tensor):
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
            raise TypeError(f"{name} must be integers, not {values.dtype}")
        return values.detach().to(torch.int64)
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes, Mapping, AbstractSet)) and getattr(values, "ndim", None) != 0:
        # Item by item, because numpy and torch read [True, 2] as the integers 1 and 2.
        items = [as_integers(name, value).cpu() for value in values]
        if len({item.shape for item in items}) > 1:
            raise ValueError(f"{name}: its rows have different lengths")
        return torch.stack(items) if items else torch.zeros(0, dtype=torch.int64)
    try:
        number = as_integer(name, values)
    except TypeError:
        raise TypeError(f"{name} must be integers, not {_describe(values)}") from None
    if not _INT64.min <= number <= _INT64.max:
        raise ValueError(f"{name}: {number} does not fit into 64 bits")
    return torch.tensor(number)


def as_size(name: str, value: Any) -> int | tuple[int, int] | None:
    """Return a side, or (height, width), as integers; None stays None.

    Raises:
        TypeError: if one of them is no integer.
        ValueError: if one of them is not positive, or there are more.
    """
    if value is None:
        return None
    sides = [as_integer(name, side) for side in (value if np.ndim(value) else [value])]
    if len(sides) not in (1, 2) or (np.ndim(value) and len(sides) == 1):
        raise ValueError(f"{name} must be one side or (height, width), not {value}")
    if min(sides) < 1:
        raise ValueError(f"{name} must be at least 1 pixel, not {min(sides)}")
    return (sides[0], sides[1]) if len(sides) > 1 else sides[0]


def _describe(value: object) -> str:
    """Return a value's type, and the value itself if it is a single one."""
    kind = str(value.dtype) if isinstance(value, (Tensor, np.ndarray)) else type(value).__name__
    return f"{value!r} ({kind})" if isinstance(value, (bool, float, str, np.generic)) else kind
