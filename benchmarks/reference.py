"""Reference measurements of the bare network: seconds per image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from hdm_core.device import Precision, in_precision, synchronise

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

MIN_SECONDS = 2.0  # of one measurement


def bare_pass(network: nn.Module, images: Tensor, precision: Precision) -> float:
    """Return the seconds per image of a forward and a backward to the input.

    Averaged over batches, images (B, C, H, W), for at least MIN_SECONDS.
    """
    images = images.detach().requires_grad_()

    def run() -> None:
        with in_precision(precision, images.device):
            logits = network(images)
        torch.autograd.grad(logits[:, 0].sum(), images)

    return _seconds_per_image(run, images)


@torch.no_grad()
def bare_forward(network: nn.Module, images: Tensor) -> float:
    """Return the seconds per image of a forward.

    Averaged over batches, images (B, C, H, W), for at least MIN_SECONDS.
    """
    return _seconds_per_image(lambda: network(images), images)


def _seconds_per_image(run: Callable[[], object], images: Tensor) -> float:
    """Time as many calls as take MIN_SECONDS.

    The host does not wait for the device between them.
    """
    begin = now(images.device)
    run()
    calls = max(1, math.ceil(MIN_SECONDS / (now(images.device) - begin)))
    begin = now(images.device)
    for _ in range(calls):
        run()
    return (now(images.device) - begin) / (calls * len(images))


def repeat_to_batch(images: Tensor, batch: int, layout: str) -> Tensor:
    """Repeat images (B, C, H, W) to a batch of this size and layout."""
    return images[torch.arange(batch, device=images.device) % len(images)].contiguous(memory_format=LAYOUTS[layout])


def quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile; one ratio is all three."""
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return low, median(ratios), high


def now(device: torch.device) -> float:
    """Return the clock in seconds after the device has finished its work."""
    synchronise(device)
    return time.perf_counter()
