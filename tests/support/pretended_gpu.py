"""Pretended GPU: tensors with the device "cuda" that are computed on the CPU.

It checks what the CPU never does: that all tensors of a call are on one device, and how often the host waits for the device.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.cuda_module import cuda_module
from tests.support.cuda_rules import INDEXING, READS, Memory, copy_waits, index_waits, memory_of, mixes_memories, set_memory
from tests.support.pretended_graph import Recorder

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")

# Paths of frames that belong to torch or to this module, and not to the caller of torch.
_FRAMEWORK = ("/torch/", "/torchvision/", "/unittest/", "/tests/support/pretended_gpu.py", "/tests/support/cuda_module.py")


class DeviceMismatchError(RuntimeError):
    """Error for a call whose tensors are on different devices, as CUDA raises it."""


class PretendedGPU:
    """Record of the work on a pretended GPU.

    Attributes:
        waits: (kind, file:line) -> number of times that the host waited for the device there; copies from pageable memory wait, too.
        kernels: name of an aten call -> number of times that it ran on the device; views are left out.
        graphs: captures and replays of CUDA graphs.
    """

    def __init__(self) -> None:
        self.graphs = Recorder()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.kernels: Counter[str] = Counter()

    def wait(self, kind: str) -> None:
        """Count a wait at the line outside torch that causes it; refuse it in a capture."""
        self.graphs.refuse_wait()
        self.waits[kind, _line()] += 1

    def report(self) -> str:
        """Return the waits in text, one line each, the most frequent first."""
        return "\n".join(f"{count} x {kind} at {line}" for (kind, line), count in self.waits.most_common())


@contextmanager
def pretended_gpu() -> Iterator[PretendedGPU]:
    """Pretend for the calling thread that torch has one GPU.

    Two modes of torch see the calls. `_PythonCalls` sees those of Python, which name devices: it runs them on the CPU and marks the storage
    of the results. `_AtenCalls` sees the operations that these consist of, also those of backward passes, and compares the marks. Results
    have the CPU's bits. Streams, memory limits and kernels that one kind of device alone has are not modelled.

    Raises:
        DeviceMismatchError: from a call that would fail on CUDA, since its tensors are on different devices.
    """
    gpu = PretendedGPU()
    with ExitStack() as stack:
        stack.enter_context(cuda_module(lambda: gpu.wait("synchronise"), gpu.graphs))
        calls = stack.enter_context(_AtenCalls(gpu))
        stack.enter_context(_PythonCalls(gpu, calls))
        yield gpu


def _line() -> str:
    """Return file:line of the innermost frame outside torch; the file is relative to the checkout."""
    frame = sys._getframe(1)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in _FRAMEWORK):
        frame = frame.f_back
    path = frame.f_code.co_filename
    for package in ("hdm_core", "pipeline", "tests"):
        _, separator, rest = path.rpartition(f"/{package}/")
        if separator:
            return f"{package}/{rest}:{frame.f_lineno}"
    return f"{path}:{frame.f_lineno}"


class _AtenCalls(TorchDispatchMode):
    """Mode that checks every aten call by CUDA's rules and marks its results.

    Attributes:
        from_python: the call in progress is one of Python without tensors, such as torch.zeros(3): its result is on the host.
        checked: False while `_PythonCalls` moves a tensor.
    """

    def __init__(self, gpu: PretendedGPU) -> None:
        super().__init__()
        self._gpu = gpu
        self.from_python = False
        self.checked = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        memories = [memory_of(tensor) for tensor in tensors] if self.checked else []
        if Memory.DEVICE in memories:
            self._check(func, args, kwargs, tensors)
            result = func(*args, **kwargs)
            if not func.is_view:
                self._gpu.kernels[str(func)] += 1
            if func is not torch.ops.aten.copy_.default or memories[0] is Memory.UNDECIDED:
                _mark(result, Memory.DEVICE)
            self._gpu.graphs.add(func, args, kwargs, result)
            return result
        result = func(*args, **kwargs)
        if self.checked and not tensors and not self.from_python:
            _mark(result, Memory.UNDECIDED)
            self._gpu.graphs.add(func, args, kwargs, result)
        return result

    def _check(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
        """Count the waits of a call with a tensor on the device, and refuse mixed devices."""
        if func is torch.ops.aten.copy_.default:
            non_blocking = bool(kwargs.get("non_blocking") or True in args[2:])
            kinds = [copy_waits(*map(memory_of, tensors), non_blocking)]
        elif mixes_memories(func, tensors):
            shapes = ", ".join(f"{tuple(tensor.shape)} on {memory_of(tensor).value}" for tensor in tensors)
            raise DeviceMismatchError(f"{func} at {_line()}: expected all tensors to be on the same device, not {shapes}")
        else:
            kinds = [READS.get(func), *(index_waits(func, args) if func in INDEXING else ())]
        for kind in kinds:
            if kind is not None:
                self._gpu.wait(kind)


def _mark(result: Any, memory: Memory) -> None:
    for leaf in tree_leaves(result):
        if isinstance(leaf, Tensor):
            set_memory(leaf, memory)


class _PythonCalls(TorchFunctionMode):
    """Mode for the Python calls that name a device, return one, or read a tensor on the host."""

    def __init__(self, gpu: PretendedGPU, calls: _AtenCalls) -> None:
        super().__init__()
        self._gpu, self._calls = gpu, calls
        self._replacements: dict[Any, Callable[..., Any]] = {
            Tensor.device.__get__: lambda tensor, *_: CUDA if _is_on_device(tensor) else Tensor.device.__get__(tensor),
            Tensor.is_cuda.__get__: lambda tensor, *_: _is_on_device(tensor),
            Tensor.is_cpu.__get__: lambda tensor, *_: not _is_on_device(tensor) and Tensor.is_cpu.__get__(tensor),
            Tensor.get_device: lambda tensor: 0 if _is_on_device(tensor) else -1,
            Tensor.to: self._to,
            Tensor.type_as: self._to,
            Tensor.cuda: lambda tensor, device="cuda", **options: self._to(tensor, device, **options),
            Tensor.cpu: lambda tensor, **options: self._to(tensor, "cpu", **options),
            Tensor.is_pinned: lambda tensor, *_: memory_of(tensor) is Memory.PINNED,
            Tensor.tolist: self._tolist,
            Tensor.numpy: partial(self._numpy, Tensor.numpy),
            Tensor.__array__: partial(self._numpy, Tensor.__array__),
            Tensor.__deepcopy__: lambda tensor, memo: set_memory(self._unchecked(Tensor.__deepcopy__, tensor, memo), memory_of(tensor)),
            Tensor.new_tensor: lambda tensor, data, **options: self._new(
                torch.tensor, data, **{"device": _device_of(tensor), "dtype": tensor.dtype, **options}
            ),
            torch.tensor: partial(self._new, torch.tensor),
            torch.as_tensor: partial(self._new, torch.as_tensor),
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._replacements:
            return self._replacements[func](*args, **kwargs)
        before = self._calls.from_python
        self._calls.from_python = not any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, kwargs)))
        try:
            return self._on_named_device(func, args, kwargs)
        finally:
            self._calls.from_python = before

    def _on_named_device(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a function on the CPU, and mark its results with the device that it names."""
        device = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        if device is None or device.type not in ("cpu", "cuda"):
            return func(*args, **kwargs)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != device.type:
            raise DeviceMismatchError(f"{func} at {_line()}: expected a generator of {device.type}, not of {generator.device.type}")
        result = func(*args, **{**kwargs, "device": CPU})
        _mark(result, Memory(device.type))
        return result

    def _to(self, tensor: Tensor, *args: Any, copy: bool = False, other: Tensor | None = None, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            other, args = args[0], args[1:]
        if other is not None:
            args = (_device_of(other), other.dtype, *args)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        options = {name: value for name, value in (("dtype", dtype), ("memory_format", layout)) if value is not None}
        if device is None or device.type == _device_of(tensor).type:
            return tensor.to(copy=copy, **options) if options or copy else tensor
        if device.type not in ("cpu", "cuda"):
            return tensor.to(device=device, copy=copy, **options)
        target = Memory(device.type)
        kind = copy_waits(target, memory_of(tensor), non_blocking)
        if kind is not None:
            self._gpu.wait(kind)
        return set_memory(self._unchecked(Tensor.to, tensor, copy=True, **options), target)

    def _tolist(self, tensor: Tensor) -> Any:
        if _is_on_device(tensor):
            self._gpu.wait("tolist")
        return tensor.tolist()

    def _numpy(self, func: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _is_on_device(tensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
        return func(tensor, *args, **kwargs)

    def _new(self, func: Callable[..., Tensor], data: Any, *, device: Any = None, **options: Any) -> Tensor:
        """Make a tensor of numbers on the host, and copy it to the named device."""
        if isinstance(data, Tensor):
            return self._to(data, _device_of(data) if device is None else torch.device(device), copy=func is torch.tensor, **options)
        for leaf in tree_leaves(data):
            if isinstance(leaf, Tensor) and _is_on_device(leaf):
                self._gpu.wait("item")
        made = set_memory(self._unchecked(func, data, **options), Memory.HOST)
        return made if device is None else self._to(made, torch.device(device))

    def _unchecked(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of torch on the CPU, and neither check nor count its parts."""
        self._calls.checked = False
        try:
            return func(*args, **kwargs)
        finally:
            self._calls.checked = True


def _is_on_device(tensor: Tensor) -> bool:
    return memory_of(tensor) is Memory.DEVICE


def _device_of(tensor: Tensor) -> torch.device:
    return CUDA if _is_on_device(tensor) else CPU
