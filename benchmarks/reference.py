"""Reference measurements of the bare network: seconds per image."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from hdm_core.cuda_graphs import CudaGraph
from hdm_core.device import Precision, in_precision, synchronise

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

MIN_SECONDS = 2.0  # of one measurement


def bare_pass(network: nn.Module, images: Tensor, precision: Precision, min_seconds: float = MIN_SECONDS) -> float:
    """Return the seconds per image of a forward and a backward to the input.

    Averaged over batches, images (B, C, H, W), for at least `min_seconds`.
    """
    return seconds_per_call(input_gradient(network, images, precision), images.device, min_seconds) / len(images)


def graphed_pass(network: nn.Module, images: Tensor, min_seconds: float = MIN_SECONDS) -> float:
    """Return the seconds per image of a pass that is replayed as one CUDA graph.

    No kernel is launched from Python and nothing else runs: no faster pass is possible with this network and these kernels.

    Args:
        network: with weights in the precision to measure.
        images: (B, C, H, W), on a GPU.
    """
    graph = CudaGraph(input_gradient(network, images, "float32"), torch.cuda.graph_pool_handle())
    try:
        return seconds_per_call(graph.replay, images.device, min_seconds) / len(images)
    finally:
        graph.release()


def input_gradient(network: nn.Module, images: Tensor, precision: Precision) -> Callable[[], Tensor]:
    """Return a function of the gradient of the first logit to images (B, C, H, W)."""
    images = images.detach().requires_grad_()

    def run() -> Tensor:
        with in_precision(precision, images.device):
            logits = network(images)
        return torch.autograd.grad(logits[:, 0].sum(), images)[0]

    return run


@torch.no_grad()
def bare_forward(network: nn.Module, images: Tensor) -> float:
    """Return the seconds per image of a forward.

    Averaged over batches, images (B, C, H, W), for at least MIN_SECONDS.
    """
    return seconds_per_call(lambda: network(images), images.device, MIN_SECONDS) / len(images)


def seconds_per_call(run: Callable[[], object], device: torch.device, min_seconds: float) -> float:
    """Time as many calls as take `min_seconds`, after one call that is not counted.

    The host does not wait for the device between them.
    """
    run()
    begin = now(device)
    run()
    calls = max(1, math.ceil(min_seconds / (now(device) - begin)))
    begin = now(device)
    for _ in range(calls):
        run()
    return (now(device) - begin) / calls


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
