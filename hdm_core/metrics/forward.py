"""Forward passes of the metrics: the targets' probabilities, in even batches."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from hdm_core.masking.consistency import chunk_size
from hdm_core.network.logits import class_logits
from hdm_core.problem_type import ProblemType, probabilities


def target_probability(network: nn.Module, images: Tensor, targets: Tensor, problem_type: ProblemType) -> Tensor:
    """Return the probabilities of targets, (B,) float32.

    Args:
        images: (B, C, H, W).
        targets: (B,) int64.
    """
    logits = class_logits(network, images).float()
    return probabilities(logits, problem_type).gather(1, targets[:, None])[:, 0]


def even_parts(rows: int, batch: int) -> Iterator[slice]:
    """Split rows into as few parts as `batch` allows, of even size.

    A small remainder would be slow.
    """
    start = 0
    while start < rows:
        stop = start + chunk_size(rows - start, batch)
        yield slice(start, stop)
        start = stop
