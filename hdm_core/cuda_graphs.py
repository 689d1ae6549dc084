"""CUDA graphs: work that is captured once, and replayed by one launch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from hdm_core.device_errors import is_out_of_memory, with_causes

# cuDNN and cuBLAS make their handles and load their kernels in the first runs, which a capture does not permit.
_WARM_UPS = 3

_ALIVE: WeakSet[CudaGraph] = WeakSet()
_STREAMS = threading.local()


class CudaGraph:
    """Work on tensors that stay where they are, captured once and replayed.

    A replay runs the kernels that the capture saw, on the same memory: the work must read nothing but tensors that outlive it, wait for
    nothing and draw no numbers. Replays of graphs that share a pool must not overlap, and a result must be copied before the next replay.

    Args:
        work: run four times on the current device; makes its result anew each time.
        pool: of `torch.cuda.graph_pool_handle`, for the memory of the work.

    Raises:
        torch.OutOfMemoryError: if the device's memory is too small.
        RuntimeError: if the work cannot be captured; the device can be used after it.
    """

    def __init__(self, work: Callable[[], Tensor], pool: Any) -> None:
        stream = _side_stream(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(stream):  # restores the stream after a capture that failed, too
                for _ in range(_WARM_UPS):
                    work()
                # Ray's threads use the device meanwhile.
                with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    self.result: Tensor | None = work()
        except RuntimeError as error:
            if any(is_out_of_memory(each) for each in with_causes(error)):  # the end of a capture that failed raises an error of its own
                raise torch.OutOfMemoryError("out of memory while the network's passes were captured") from error
            raise
        torch.cuda.current_stream().wait_stream(stream)
        self._graph: torch.cuda.CUDAGraph | None = graph
        _ALIVE.add(self)

    @property
    def is_released(self) -> bool:
        """True once its memory was given back."""
        return self._graph is None

    def replay(self) -> Tensor:
        """Run the work again, and return its result, which the next replay overwrites.

        Raises:
            RuntimeError: if the graph was released.
        """
        if self._graph is None or self.result is None:
            raise RuntimeError("this graph was released")
        self._graph.replay()
        return self.result

    def release(self) -> None:
        """Give up the graph and its memory."""
        self._graph = self.result = None
        _ALIVE.discard(self)


def captured_graphs() -> int:
    """Return the number of graphs that can be replayed."""
    return len(_ALIVE)


def release_graphs() -> int:
    """Release all graphs and return their number.

    Other work can have their memory then.
    """
    graphs = list(_ALIVE)
    for graph in graphs:
        graph.release()
    return len(graphs)


def recover(pool: Any) -> None:
    """Undo what a capture that failed leaves behind in torch 2.11.

    The graphs of its pool must be released. Three things are left: the allocator takes the capture for unfinished, and gives no cached
    memory back when it runs out; the pool is held for ever (pytorch#180395, pytorch#190348); and the random generator refuses to draw
    ("Offset increment outside graph capture"), until a capture succeeds. A torch without these faults raises, or does it once more.
    """
    device = torch.cuda.current_device()
    with suppress(RuntimeError):
        torch._C._cuda_endAllocateToPool(device, pool)  # noqa: SLF001 - torch gives no other way
    torch.cuda.empty_cache()
    if any(segment["segment_pool_id"] == pool for segment in torch.cuda.memory_snapshot()):  # type: ignore[no-untyped-call]
        with suppress(RuntimeError):
            torch._C._cuda_releasePool(device, pool)  # noqa: SLF001 - torch gives no other way
        torch.cuda.empty_cache()
    with suppress(RuntimeError):  # the error that is handled matters more
        number = torch.zeros(1, device="cuda")
        CudaGraph(lambda: number + 1, torch.cuda.graph_pool_handle()).release()


def _side_stream(device: int) -> torch.cuda.Stream:
    """Return the stream on which this thread captures.

    There is one, because cuBLAS keeps memory for each stream that it was used on: 64 MiB on an H100, where captures on streams of their
    own came to hold 2.1 GiB.
    """
    streams: dict[int, torch.cuda.Stream] = _STREAMS.__dict__.setdefault("by_device", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return streams[device]
