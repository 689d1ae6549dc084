"""Random draws of the methods: a generator on the CPU with a seed in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_SEED: ContextVar[int] = ContextVar("hdm_core_draws_seed", default=0)


def method_generator() -> torch.Generator:
    """Return a new generator on the CPU for the draws of a method.

    Its seed is 0, so that draws depend neither on the device nor on earlier ones; `draws_of_seed` sets another one.
    """
    return torch.Generator().manual_seed(_SEED.get())


@contextmanager
def draws_of_seed(seed: int) -> Iterator[None]:
    """Let methods draw from another seed, in this thread, while the context lasts.

    Maps of two seeds differ by the draws alone: masks of RISE, noise of SmoothGrad, references of Expected Gradients, shifts of Mask, noise
    on masked pixels of HDM and DM.

    Example:
        >>> from hdm_core.draws import draws_of_seed, method_generator
        >>> with draws_of_seed(7):
        ...     method_generator().initial_seed()
        7
        >>> method_generator().initial_seed()
        0
    """
    token = _SEED.set(seed)
    try:
        yield
    finally:
        _SEED.reset(token)
