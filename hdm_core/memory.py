"""Memory of a method: bytes of live tensors, measured on batches of two sizes."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hdm_core.classifier import Classifier
from hdm_core.device import Precision
from hdm_core.explain import explain_with
from hdm_core.network.logits import class_logits
from hdm_core.settings import Settings

# Passes per image after which a method is stopped: a few of them hold all that the later ones do, and HDM's first ones choose a baseline
# one image at a time.
_PASSES = 12

# Images of the two measurements.
_COUNTS = 1, 2


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of tensors beside the network and its folded copy, linear in the batch.

    Attributes:
        fixed: that do not depend on the batch.
        per_image: of each image of the batch.
    """

    fixed: int
    per_image: int

    def at(self, batch: int) -> int:
        """Return the bytes of a batch of that many images."""
        return self.fixed + batch * self.per_image


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own base has no annotations
    """Counter of the bytes of tensors that are made and not yet freed.

    Attributes:
        peak: largest sum so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak, self._now = 0, 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run an operation, and count the storages of its results."""
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, torch.Tensor) and each.layout == torch.strided:
                self._add(each.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self._now -= size


class _EnoughError(Exception):
    """Reason to stop a method whose memory is known."""


def method_memory(
    classifier: Classifier, size: tuple[int, int], method: str, settings: Settings, precision: Precision | None = None
) -> MemoryNeed:
    """Measure the memory of a method on one random image and on two.

    The method is stopped after its first passes. On CUDA it is the allocator's peak, without captured graphs.

    Args:
        size: height and width of the network's input in pixels.
    """

    def work(images: torch.Tensor) -> None:
        passes = 0

        def stop(done: int) -> None:
            nonlocal passes
            passes += done
            if passes >= _PASSES * len(images):
                raise _EnoughError

        with suppress(_EnoughError):
            explain_with(classifier, images, method, settings, 0, batch=len(images), precision=precision, progress=stop, cuda_graphs=False)

    return _linear(classifier, size, work)


def forward_memory(classifier: Classifier, size: tuple[int, int]) -> MemoryNeed:
    """Measure the memory of forward passes, of which metrics consist."""

    def work(images: torch.Tensor) -> None:
        with torch.no_grad(), classifier.frozen() as network:
            class_logits(network, images * 1)

    return _linear(classifier, size, work)


def forward_bytes(classifier: Classifier, size: tuple[int, int]) -> int | None:
    """Count the tensors of a forward pass of one image, without computing it.

    A copy of the network runs: what it keeps of a pass would have no values either.

    Returns:
        Bytes; None for a network that cannot run on tensors without values.
    """
    channels = 3 if classifier.preprocess is None else classifier.preprocess.channels
    try:
        with classifier.frozen() as network:
            copied = copy.deepcopy(network)
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
            class_logits(copied, torch.empty(1, channels, *size, dtype=classifier.dtype))
    except Exception:  # whatever a user's network does with tensors that have no values
        return None
    return int(live.peak)


def _linear(classifier: Classifier, size: tuple[int, int], work: Callable[[torch.Tensor], None]) -> MemoryNeed:
    channels = 3 if classifier.preprocess is None else classifier.preprocess.channels
    images = torch.randn(max(_COUNTS), channels, *size, generator=torch.Generator().manual_seed(0)).to(classifier.device, classifier.dtype)
    work(images[:1])  # it folds the network, whose copy stays; else the copy could hide what an image takes
    peaks = []
    for count in _COUNTS:
        gc.collect()  # what an earlier measurement left in reference cycles would be freed during this one
        with _peak(classifier.device) as found:
            work(images[:count])
        peaks.append(found())
    per_image = max(0, peaks[1] - peaks[0]) // (_COUNTS[1] - _COUNTS[0])
    return MemoryNeed(max(peaks) - _COUNTS[1] * per_image, per_image)


@contextmanager
def _peak(device: torch.device) -> Iterator[Callable[[], int]]:
    """Measure the largest number of bytes that the block holds at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
    else:
        with LiveBytes() as live:
            yield lambda: live.peak
