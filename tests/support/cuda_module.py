"""Answers of torch.cuda for a GPU that does not exist."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from tests.support.cuda_rules import Memory, set_memory
from tests.support.pretended_graph import PretendedGraph, Recorder, capturing

NAME = "pretended GPU"
_GIB = 1 << 30

# Function -> result, whatever its arguments.
_ANSWERS: dict[str, Any] = {
    "_C._cuda_endAllocateToPool": None,
    "accelerator.current_stream": SimpleNamespace(is_capturing=lambda: False),
    "accelerator.is_available": True,
    "cuda.current_device": 0,
    "cuda.current_stream": SimpleNamespace(wait_stream=lambda _: None),
    "cuda.device_count": 1,
    "cuda.empty_cache": None,
    "cuda.memory_snapshot": [],
    "cuda.get_device_capability": (8, 0),
    "cuda.get_device_name": NAME,
    "cuda.get_device_properties": SimpleNamespace(name=NAME, total_memory=80 * _GIB, major=8, minor=0, multi_processor_count=108),
    "cuda.get_rng_state": torch.zeros(0, dtype=torch.uint8),
    "cuda.graph_pool_handle": (0, 1),
    "cuda.is_available": True,
    "cuda.is_current_stream_capturing": False,
    "cuda.mem_get_info": (79 * _GIB, 80 * _GIB),
    "cuda.set_device": None,
    "cuda.set_per_process_memory_fraction": None,
    "cuda.set_rng_state": None,
    "cuda.stream": nullcontext(),
    "cuda.Stream": SimpleNamespace(wait_stream=lambda _: None),
}


class _Autocast(torch.autocast):
    """Autocast for "cuda" with the CPU's rules, since the kernels are the CPU's."""

    def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **options)


@contextmanager
def cuda_module(synchronise: Callable[[], None], recorder: Recorder) -> Iterator[None]:
    """Replace functions of torch.cuda that need a driver.

    Args:
        synchronise: called in place of torch.cuda.synchronize.
        recorder: of the calls that graphs capture.
    """
    with ExitStack() as stack:
        for name, answer in _ANSWERS.items():
            stack.enter_context(mock.patch(f"torch.{name}", return_value=answer))
        stack.enter_context(mock.patch("torch.cuda.synchronize", side_effect=lambda *_: synchronise()))
        stack.enter_context(mock.patch("torch.cuda.CUDAGraph", partial(PretendedGraph, recorder)))
        stack.enter_context(mock.patch("torch.cuda.graph", partial(capturing, recorder)))
        stack.enter_context(mock.patch("torch.autocast", _Autocast))
        stack.enter_context(mock.patch("hdm_core.cuda_graphs._STREAMS", threading.local()))  # streams of this GPU alone
        # Also for the threads that read images, in which the modes of the pretended GPU are not active.
        stack.enter_context(mock.patch("torch.Tensor.pin_memory", lambda tensor, *_: set_memory(tensor.clone(), Memory.PINNED)))
        yield
