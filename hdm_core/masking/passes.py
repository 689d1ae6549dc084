"""Inputs of a pass, and passes by a CUDA graph where there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hdm_core.cuda_graphs import CudaGraph, recover
from hdm_core.device import LAYOUT
from hdm_core.device_errors import clear_tensors, is_fatal, is_out_of_memory, with_causes
from hdm_core.messages import typed_line

_log = logging.getLogger(__name__)

# A first replay is compared with the work, because no graph must read memory that is no longer its own, or miss an input: its gradient
# would have nothing to do with the other. Both differ by rounding, as kernels for other numbers of rows do, in bfloat16 by some 1%.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class PassInputs:
    """Masks, each with the facts of the image that it is applied to.

    Attributes:
        masks: (N, 1, H, W).
        contrast: image minus baseline, (N, C, H, W).
        baseline: values of masked pixels, (N, C, H, W), or (1, C, H, W) or (1, C, 1, 1) for all.
        background: (1, C, H, W), added to the baseline; None for zeros.
        targets: (N,) int64.
        reference: f_p that a masked image should have, (N,).
        sign: 1 where less is missing evidence, -1 where more is evidence that is left, (N,).
        scale: divisor of a relative J, (N,).
    """

    masks: Tensor
    contrast: Tensor
    baseline: Tensor
    background: Tensor | None
    targets: Tensor
    reference: Tensor
    sign: Tensor
    scale: Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.masks)

    def rows(self, part: slice) -> PassInputs:
        """Return a slice of the masks, with what belongs to all of them."""
        baseline = self.baseline[part] if len(self.baseline) == len(self) else self.baseline
        return PassInputs(
            self.masks[part],
            self.contrast[part],
            baseline,
            self.background,
            self.targets[part],
            self.reference[part],
            self.sign[part],
            self.scale[part],
        )

    def like(self, rows: int) -> PassInputs:
        """Return tensors of another number of rows to copy inputs into."""

        def empty(tensor: Tensor, rows: int) -> Tensor:
            layout = LAYOUT if tensor.ndim == 4 else torch.contiguous_format
            return torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device, memory_format=layout)

        of_all = len(self.baseline) == 1
        return PassInputs(
            empty(self.masks, rows),
            empty(self.contrast, rows),
            empty(self.baseline, 1 if of_all else rows),
            empty(self.contrast, 1),
            empty(self.targets, rows),
            empty(self.reference, rows),
            empty(self.sign, rows),
            empty(self.scale, rows),
        )

    def copy_(self, inputs: PassInputs) -> None:
        """Copy inputs of at most as many rows; those that are left repeat the first."""
        for field in fields(self):
            target, source = getattr(self, field.name), getattr(inputs, field.name)
            if source is None:
                target.zero_()
                continue
            target[: len(source)].copy_(source)
            if len(source) < len(target):
                target[len(source) :].copy_(source[:1])


Compute = Callable[[PassInputs], Tensor]  # a pass: the gradient (N, 1, H, W) to the masks


class PassGraphs:
    """Graphs of one network's passes, by kind and number of rows.

    They outlive a call of `explain`: their inputs are copied into tensors that stay where they are.

    Attributes:
        reason: why the network's passes cannot be captured, in one line; None if they can.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[Hashable, tuple[CudaGraph, PassInputs]] = {}

    def gradient(self, compute: Compute, inputs: PassInputs, kind: Hashable, batch: int, checked: set[Hashable]) -> Tensor:
        """Return what `compute` returns for the inputs, by replays.

        There are graphs of two numbers of rows: a batch, and a quarter of one for what is left over.

        Args:
            kind: equal for passes that differ in the values of their inputs alone.
            batch: upper limit of rows.
            checked: kinds whose first replay was compared with the work itself; added to.

        Raises:
            torch.OutOfMemoryError: if a graph does not fit into memory.
        """
        results = []
        for part, rows in parts(len(inputs), batch):
            some = inputs.rows(part)
            shapes = inputs.contrast.shape[1:], inputs.baseline.shape[1:], len(inputs.baseline) == 1, inputs.contrast.dtype
            key = (kind, rows, *shapes)
            replayed = None if self.reason is not None else self._replay(compute, some, key, rows, checked)
            results.append(compute(some) if replayed is None else replayed)
        return results[0] if len(results) == 1 else torch.cat(results)

    def _replay(self, compute: Compute, inputs: PassInputs, key: Hashable, rows: int, checked: set[Hashable]) -> Tensor | None:
        """Return the gradient by a replay; None, saying so in the log, if it cannot be."""
        found = self._graphs.get(key)
        if found is None or found[0].is_released:
            self._graphs.pop(key, None)
            static = inputs.like(rows)
            static.copy_(inputs)
            try:
                found = CudaGraph(lambda: compute(static), self._pool), static
            except RuntimeError as error:
                if is_fatal(error):
                    raise
                reason = typed_line(list(with_causes(error))[-1], 160)  # the end of a capture that failed raises an error of its own
                self._release(error)
                if is_out_of_memory(error):
                    raise
                self._refuse(reason)
                return None
            self._graphs[key] = found
            checked.discard(key)
        graph, static = found
        static.copy_(inputs)
        gradient = graph.replay()[: len(inputs)].clone()
        if key not in checked:
            checked.add(key)
            expected = compute(inputs).nan_to_num()
            if bool((gradient.nan_to_num() - expected).norm() > _TOLERANCE * expected.norm()):
                self._refuse("its replay gives another gradient")
                return None
        return gradient

    def _release(self, error: RuntimeError | None = None) -> None:
        """Give back the memory of all graphs, and of the capture that an error ended."""
        for graph, _ in self._graphs.values():
            graph.release()
        self._graphs.clear()
        if error is not None:
            clear_tensors(error)
            recover(self._pool)
            self._pool = torch.cuda.graph_pool_handle()

    def _refuse(self, reason: str) -> None:
        self.reason = reason
        self._release()
        _log.warning("passes of this network are launched kernel by kernel, since they cannot be captured as a CUDA graph: %s", reason)


_GRAPHS: WeakKeyDictionary[nn.Module, PassGraphs] = WeakKeyDictionary()


def pass_graphs(network: nn.Module) -> PassGraphs:
    """Return the graphs of a network; they live as long as it does."""
    found = _GRAPHS.get(network)
    if found is None:
        found = _GRAPHS[network] = PassGraphs()
    return found


def parts(rows: int, batch: int) -> Iterator[tuple[slice, int]]:
    """Yield slices of `rows` rows, each with the number of rows of its graph.

    Rows that fill more than three quarters of a batch are one; fewer are quarters, so that at most a quarter is computed in vain.
    """
    quarter = max(batch // 4, min(batch, 2))
    if rows > 3 * quarter:
        yield slice(0, rows), batch
        return
    for start in range(0, rows, quarter):
        yield slice(start, min(start + quarter, rows)), quarter
