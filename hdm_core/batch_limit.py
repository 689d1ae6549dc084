"""Batch size that is halved while memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from hdm_core.cuda_graphs import release_graphs
from hdm_core.device_errors import clear_tensors, is_out_of_memory

R = TypeVar("R")

_log = logging.getLogger(__name__)


class BatchLimit:
    """Upper limit of images per forward pass, halved for good where memory runs out.

    One that is given to several calls of `explain_with` or `evaluate` lets the next call begin with the size that fitted.

    Args:
        size: images per forward pass.
        work: name of the work, for the log.

    Attributes:
        size: the present limit.
    """

    def __init__(self, size: int, work: str) -> None:
        self.size = size
        self._work = work
        self._has_released = False  # graphs, at the present size

    def run(self, work: Callable[[int], R]) -> R:
        """Call `work` with the limit; halve it and try again while memory runs out.

        What was halved is logged in one line at the end, because on a GPU the bytes of maps may depend on the batch size.

        Raises:
            torch.OutOfMemoryError: if one image alone does not fit; cuDNN and cuBLAS raise a RuntimeError.
        """
        first = self.size
        try:
            while True:
                try:
                    return work(self.size)
                except RuntimeError as error:
                    if not self.shrink(error, self.size):
                        raise
        finally:
            if self.size < first:
                _log.warning("%s: out of memory with batches of %d images; from here on they have at most %d", self._work, first, self.size)

    def shrink(self, error: RuntimeError, size: int) -> bool:
        """Halve the limit if memory ran out; return whether to try again.

        The memory of CUDA graphs is given back first, and then the same size tried once more; it may capture the same graphs again.

        Args:
            error: of a batch of `size` images.
        """
        if not is_out_of_memory(error):
            return False
        released = release_graphs() > 0
        if released and not self._has_released:
            self._has_released = True
        elif self.size == 1:
            return False
        else:
            self.size = (min(size, self.size) + 1) // 2
            self._has_released = False
        clear_tensors(error)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()  # cuDNN and cuBLAS cannot use the memory that torch caches
        return True
