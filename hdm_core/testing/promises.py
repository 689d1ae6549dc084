"""Promises: named checks that every entry of a registry must pass."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from hdm_core.registry import Entry, Registry

Subject = TypeVar("Subject")
T = TypeVar("T", bound=Entry)


@dataclass(frozen=True)
class Promise(Generic[Subject]):
    """A check of one promise, which raises an AssertionError where it is broken.

    Attributes:
        name: the promise in words, with its case in brackets.
        cuda: it needs a CUDA device.
    """

    name: str
    check: Callable[[Subject], None]
    cuda: bool = False


class Promises(list[Promise[Subject]]):
    """A list of promises that functions are added to by decorators."""

    def add(self, *cases: Any, cuda: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
        """Add the decorated function, whose name is the promise.

        With cases it is added once per case, which is its second argument.
        """

        def decorate(function: Callable[..., None]) -> Callable[..., None]:
            name = function.__name__.replace("_", " ")
            if not cases:
                self.append(Promise(name, function, cuda))
            for case in cases:
                self.append(Promise(f"{name} [{case}]", partial(_check_case, function, case), cuda))
            return function

        return decorate


def _check_case(function: Callable[[Any, Any], None], case: Any, subject: Any) -> None:
    function(subject, case)


def check_all(name: str, subject: Subject, promises: Sequence[Promise[Subject]]) -> None:
    """Check all promises about an entry.

    Those that need CUDA are left out where there is no device.

    Raises:
        AssertionError: for the first promise that is broken, with its name.
    """
    if not __debug__:
        raise RuntimeError("python -O removes the assertions that this check consists of: run it without -O")
    for promise in promises:
        if promise.cuda and not torch.cuda.is_available():
            continue
        try:
            promise.check(subject)
        except Exception as error:  # an entry that raises breaks the promise as well
            raise AssertionError(f"{name} breaks the promise {promise.name!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the error in one line; of an assertion without a message its source."""
    words = " ".join(str(error).split())
    if isinstance(error, AssertionError):
        return words or traceback.extract_tb(error.__traceback__)[-1].line or "an assertion failed"
    return f"{type(error).__name__}: {words}"


@contextmanager
def registered(registry: Registry[T], entry: T) -> Iterator[None]:
    """Put an entry into a registry while the context lasts."""
    earlier = registry.get(entry.id)
    registry[entry.id] = entry
    try:
        yield
    finally:
        if earlier is None:
            del registry[entry.id]
        else:
            registry[entry.id] = earlier


@contextmanager
def double_precision() -> Iterator[None]:
    """Make new tensors and networks float64.

    Two ways to compute one thing then agree to many digits.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
