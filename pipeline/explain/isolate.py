"""Isolation of failures: one image costs the others of its batch nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from hdm_core.device_errors import is_fatal, is_out_of_memory
from pipeline.errors import HdmError, one_line

T = TypeVar("T")
R = TypeVar("R")

MEMORY_ADVICE = (
    "start fewer workers per GPU (a larger compute.gpus_per_worker), or make images smaller (classifier.resize and classifier.crop)"
)


@dataclass(frozen=True)
class ItemFailure(Generic[T]):
    """An item for which the work failed, alone too, with the error as one line."""

    item: T
    error: str


def isolated(items: Sequence[T], work: Callable[[Sequence[T]], R], *, memory_fails_shard: bool = True) -> Iterator[R | ItemFailure[T]]:
    """Yield the result of `work` for all items, or else for each item alone.

    If `work` raises for all items at once, it is called for each of them; if it runs out of the device's memory, for each half of them, and
    so on.

    Args:
        work: called with one item or more. It may be called again with items whose results it has stored before.
        memory_fails_shard: whether an item that alone does not fit into the GPU's memory raises: the memory may be another process's,
            and free when the shard is tried again.

    Raises:
        HdmError: an error of the run, such as unreachable storage, which is no item's fault.
        RuntimeError: a fatal error of the device, after which all other items would fail, too.
        torch.OutOfMemoryError: see `memory_fails_shard`.
    """
    attempts = [list(items)] if items else []
    while attempts:
        attempt = attempts.pop(0)
        try:
            result = work(attempt)
        except HdmError:
            raise
        except Exception as error:  # whatever a user's network, preprocessing or image raises belongs to this item
            if is_fatal(error):
                raise
            no_memory = is_out_of_memory(error)
            if len(attempt) > 1:
                size = (len(attempt) + 1) // 2 if no_memory else 1
                attempts[:0] = [attempt[start : start + size] for start in range(0, len(attempt), size)]
                continue
            if no_memory:
                error = _with_advice(error)
                if memory_fails_shard:
                    raise error from None
            failure = ItemFailure(attempt[0], f"{type(error).__name__}: {one_line(error)}")
        else:
            yield result
            continue
        yield failure


def _with_advice(error: Exception) -> Exception:
    """Return an error about memory with the remedy, also for one of a library."""
    if MEMORY_ADVICE in str(error):
        return error  # of an inner call
    return torch.OutOfMemoryError(f"one image does not fit into the device's free memory: {MEMORY_ADVICE} ({one_line(error, 120)})")


@contextmanager
def warnings_as_messages() -> Iterator[None]:
    """Print the warnings that the process would raise as errors.

    With `python -W error`, a warning of Pillow or numpy would fail an image.
    """
    with warnings.catch_warnings():
        if any(action == "error" for action, *_ in warnings.filters):
            warnings.simplefilter("default")
        yield
