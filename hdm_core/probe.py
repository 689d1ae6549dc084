"""What a network costs on the machine in hand: seconds a pass, and the batch at which it is fastest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.device import Precision, batch_candidates, default_precision, synchronise
from hdm_core.masking.consistency import ConsistencyLoss, PassCounter
from hdm_core.network.logits import class_logits

# A batch this much slower than the best is not worth the memory of the best.
_TOLERANCE = 1.05


@dataclass(frozen=True)
class Probe:
    """What was measured: seconds are of one image in a batch."""

    batch: int
    pass_seconds: float  # forward and backward, with the masked image and the mask's gradient
    forward_seconds: float


def probe(
    classifier: Classifier, side: int, batches: Sequence[int] | None = None, precision: Precision | None = None, repeats: int = 3
) -> Probe:
    """The smallest of some batches that is within 5% of the fastest, and what a pass costs in it.

    Args:
        side: of the network's input, in pixels.
        batches: candidates, ascending; None takes the device's.
        repeats: the best of so many counts.

    Raises:
        torch.OutOfMemoryError: if memory does not hold even the smallest.
    """
    device = classifier.device
    blank = torch.zeros(1, 3, side, side, device=device, dtype=classifier.dtype)
    found: dict[int, float] = {}
    with classifier.folded(blank) as network:
        for batch in batches or batch_candidates(device):
            seconds = _pass_seconds(network, blank, batch, precision or default_precision(device), repeats)
            if seconds is None:
                break  # a larger one will not fit either
            found[batch] = seconds
        if not found:
            raise torch.OutOfMemoryError(f"{classifier.name} with images of {side} x {side} does not fit into the memory of {device}")
        batch = min(batch for batch, seconds in found.items() if seconds <= _TOLERANCE * min(found.values()))
        with torch.no_grad():
            forward = _best(lambda: class_logits(network, blank.expand(batch, -1, -1, -1)), device, repeats)
    return Probe(batch, found[batch], forward / batch)


def fastest_batch(classifier: Classifier, side: int, precision: Precision | None = None) -> int:
    """The batch that `probe` finds; without measuring where the device has only one candidate."""
    candidates = batch_candidates(classifier.device)
    return candidates[0] if len(candidates) == 1 else probe(classifier, side, precision=precision).batch


def _pass_seconds(network: nn.Module, blank: Tensor, batch: int, precision: Precision, repeats: int) -> float | None:
    """Seconds of one pass in this batch; None if memory does not hold it."""
    images = blank.expand(batch, -1, -1, -1)
    index = torch.arange(batch, device=blank.device)
    try:
        consistency = ConsistencyLoss(
            network, images, torch.zeros_like(index), blank + 1, "logit", batch, PassCounter(), precision=precision
        )
        seconds = _best(lambda: consistency.gradient(torch.full_like(images[:, :1], 0.5), index), blank.device, repeats)
    except torch.OutOfMemoryError:
        return None
    return seconds / batch if consistency.batch == batch else None


def _best(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Seconds of the fastest of some runs, after one that only warms up."""
    seconds = []
    for _ in range(repeats + 1):
        synchronise(device)
        begin = time.perf_counter()
        work()
        synchronise(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])
