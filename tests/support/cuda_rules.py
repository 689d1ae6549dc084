"""Rules of CUDA for the memory of tensors: which calls may mix memories, and which ones wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


class Memory(Enum):
    """Memory of a tensor.

    UNDECIDED is that of a tensor which C++ makes without an input, such as zeros in a backward pass: it is that of its first use.
    """

    HOST = "cpu"
    PINNED = "pinned"
    DEVICE = "cuda"
    UNDECIDED = "any"


ON_HOST = (Memory.HOST, Memory.PINNED)

# Calls that read a result of the device on the host, by what they wait for.
READS = {
    aten._local_scalar_dense.default: "item",
    aten.is_nonzero.default: "item",
    aten.equal.default: "equal",
    aten.allclose.default: "allclose",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "nonzero",
    aten._unique.default: "unique",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten._linalg_check_errors.default: "linalg",
    aten._linalg_eigh.default: "linalg",
    aten._linalg_svd.default: "linalg",
}

_READ_INDEX = (aten.index.Tensor, aten._unsafe_index.Tensor)
_WRITE_INDEX = (aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default, aten._unsafe_index_put.default)
INDEXING = frozenset((*_READ_INDEX, *_WRITE_INDEX))


def memory_of(tensor: Tensor) -> Memory:
    """Return the memory that a tensor's storage is marked with, by default the host's."""
    with torch._C.DisableTorchFunction():
        try:
            memory: Memory = getattr(tensor.untyped_storage(), "pretended_memory", Memory.HOST)
        except (NotImplementedError, RuntimeError):  # a sparse tensor, or one without data, such as those of torch.export
            return Memory.HOST
    return memory


def set_memory(tensor: Tensor, memory: Memory) -> Tensor:
    """Mark a tensor's storage, which its views share, and return the tensor."""
    with torch._C.DisableTorchFunction(), suppress(NotImplementedError, RuntimeError):
        tensor.untyped_storage().pretended_memory = memory  # type: ignore[attr-defined]
    return tensor


def mixes_memories(func: Any, tensors: Sequence[Tensor]) -> bool:
    """Return whether a call with a tensor on the device has others that CUDA refuses.

    A single number may be on the host: it becomes an argument of the kernel. Indices may be there, too: they are copied.
    """
    if func in _READ_INDEX:
        tensors = tensors[:1]
    elif func in _WRITE_INDEX:
        tensors = [tensors[0], tensors[-1]]
    return any(memory_of(tensor) in ON_HOST and (tensor.ndim > 0 or tensor is tensors[0]) for tensor in tensors)


def index_waits(func: Any, args: Sequence[Any]) -> Iterator[str]:
    """Yield the waits of an indexing call: copies of indices, and counts of True."""
    indices = [index for index in args[1] if isinstance(index, Tensor)]
    if func in _WRITE_INDEX:
        value = args[2]
        if value.numel() == 1 and all(index.dtype == torch.bool for index in indices):  # it becomes masked_fill
            indices = [index for index in indices if memory_of(index) in ON_HOST]
            yield from ("copy to the device" for _ in indices)
            return
        if memory_of(value) in ON_HOST:
            yield "copy to the device"
    for index in indices:
        if memory_of(index) in ON_HOST:
            yield "copy to the device"
        if index.dtype in (torch.bool, torch.uint8):
            yield "nonzero"


def copy_waits(target: Memory, source: Memory, non_blocking: bool) -> str | None:
    """Return the kind of wait of a copy between two memories; None if there is none.

    From the host a copy is asynchronous with `non_blocking` and from pinned memory only; to the host with `non_blocking`.
    """
    if target is Memory.DEVICE and source in ON_HOST:
        return None if non_blocking and source is Memory.PINNED else "copy to the device"
    if target in ON_HOST and source is Memory.DEVICE:
        return None if non_blocking else "copy to the host"
    return None
