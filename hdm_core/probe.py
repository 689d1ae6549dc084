"""Probe a network on this machine: seconds per pass and the fastest batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.device import Precision, batch_candidates, default_precision, in_precision, synchronise
from hdm_core.device_errors import is_out_of_memory
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.network.logits import class_logits

# The smallest batch within this factor of the fastest is taken: a larger one is not worth its memory.
_TOLERANCE = 1.05


@dataclass(frozen=True)
class Probe:
    """Measured batch size and seconds per image in a batch of that size.

    Attributes:
        seconds_per_pass: of a forward and a backward, with the masked image and the mask's gradient.
        seconds_per_forward, seconds_per_float32_forward: in the precision of the masks, and in float32, as the metrics are measured.
    """

    batch: int
    seconds_per_pass: float
    seconds_per_forward: float
    seconds_per_float32_forward: float


def probe(
    classifier: Classifier,
    size: int | tuple[int, int],
    batches: Sequence[int] | None = None,
    precision: Precision | None = None,
    repeats: int = 3,
    cuda_graphs: bool = True,
) -> Probe:
    """Find the smallest batch size within 5% of the fastest, and its seconds per pass.

    Args:
        size: side of the network's input in pixels, or its height and width; its channels are the preprocess's, or three.
        batches: candidate batch sizes, ascending; None for those of the device.
        repeats: timed repetitions, of which the fastest counts.
        cuda_graphs: on CUDA capture the passes, as `explain` does.

    Raises:
        torch.OutOfMemoryError: if not even the smallest fits into memory.
    """
    device = classifier.device
    precision = precision or default_precision(device)
    height, width = size if isinstance(size, tuple) else (size, size)
    channels = 3 if classifier.preprocess is None else classifier.preprocess.channels
    # Not a constant image: GPUs multiply zeros with less power, and so faster, by 13%.
    image = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0)).to(device, classifier.dtype)
    timings: dict[int, float] = {}
    with classifier.folded(image, precision) as network, classifier.folded(image) as in_float32:
        for batch in batches or batch_candidates(device):
            seconds = _measure_pass(network, image, batch, precision, repeats, cuda_graphs)
            if seconds is None:
                break  # a larger batch will not fit either
            timings[batch] = seconds
        if not timings:
            raise torch.OutOfMemoryError(
                f"{classifier.name} with images of {height} x {width} does not fit into the free memory of {device}: "
                "use fewer workers per GPU, or smaller images"
            )
        batch = min(batch for batch, seconds in timings.items() if seconds <= _TOLERANCE * min(timings.values()))
        with torch.no_grad():
            images = image.expand(batch, -1, -1, -1)
            forward = _fastest_seconds(lambda: _forward(network, images, precision), device, repeats)
            exact = forward if precision == "float32" else _fastest_seconds(lambda: class_logits(in_float32, images), device, repeats)
    return Probe(batch, timings[batch], forward / batch, exact / batch)


def _forward(network: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    with in_precision(precision, images.device):
        return class_logits(network, images)


def _measure_pass(network: nn.Module, image: Tensor, batch: int, precision: Precision, repeats: int, cuda_graphs: bool) -> float | None:
    """Return seconds per pass at this batch size; None if it does not fit into memory."""
    images = image.expand(batch, -1, -1, -1)
    index = torch.arange(batch, device=image.device)
    try:
        consistency = ConsistencyLoss(
            network,
            images,
            torch.zeros_like(index),
            image + 1,
            "logit",
            batch,
            PassCounter(),
            precision=precision,
            cuda_graphs=cuda_graphs,
        )
        seconds = _fastest_seconds(lambda: consistency.gradient(torch.full_like(images[:, :1], 0.5), index), image.device, repeats)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None
    return seconds / batch if consistency.batch == batch else None


def _fastest_seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the seconds of the fastest of `repeats` calls, after one warm-up call."""
    seconds = []
    for _ in range(repeats + 1):
        synchronise(device)
        begin = time.perf_counter()
        call()
        synchronise(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])
