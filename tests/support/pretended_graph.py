"""CUDA graphs of the pretended GPU: aten calls that are recorded, and repeated on the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

NOT_PERMITTED = "CUDA error: operation not permitted when stream is capturing"
FAILED_BEFORE = "CUDA error: operation failed due to a previous error during capture"


class Recorder:
    """Calls of the capture in progress.

    Attributes:
        calls: (function, arguments, keywords, result) of each; None while nothing is captured.
        captures, replays: their numbers.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] | None = None
        self.captures = 0
        self.replays = 0

    def refuse_wait(self) -> None:
        """Raise CUDA's error of a call that waits, during a capture."""
        if self.calls is not None:
            raise torch.AcceleratorError(NOT_PERMITTED)

    def add(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Record a call on the device, unless it only gives memory another shape."""
        if self.calls is not None and not func.is_view:
            # Without the graph of autograd, which would keep the network alive.
            arguments = tree_map_only(Tensor, Tensor.detach, (args, kwargs, result))
            self.calls.append((func, *arguments))


class PretendedGraph:
    """`torch.cuda.CUDAGraph` whose replay computes the recorded calls again.

    A call that makes a tensor writes it where the first one was: what the capture did not record, or read from other memory, stays as
    it was, as on a GPU.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    @torch.no_grad()
    def replay(self) -> None:
        """Compute the calls in order."""
        self._recorder.replays += 1
        with torch._C.DisableTorchFunction():  # these are calls of aten: what device they name is the one that they ran on
            for func, args, kwargs, old in self.calls:
                new = func(*args, **kwargs)
                for target, value in zip(tree_leaves(old), tree_leaves(new), strict=True):
                    if isinstance(target, Tensor) and target.data_ptr() != value.data_ptr():
                        target.copy_(value)


@contextmanager
def capturing(recorder: Recorder, graph: PretendedGraph, **options: Any) -> Iterator[None]:
    """Record calls, as `torch.cuda.graph` does: the end of a capture that failed raises another error."""
    assert set(options) == {"pool", "stream", "capture_error_mode"}
    recorder.captures += 1
    recorder.calls = []
    try:
        yield
        graph.calls = recorder.calls
    except Exception:
        raise torch.AcceleratorError(FAILED_BEFORE)  # noqa: B904 - torch gives no cause either, but the context is there
    finally:
        recorder.calls = None
