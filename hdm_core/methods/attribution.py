"""Shared by pixel attribution methods: input gradients and channel reduction."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hdm_core.masking.ops import normalise
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.base import ExplainJob, RawMaps
from hdm_core.network.gradients import gradient_of
from hdm_core.network.hooks import forward_to
from hdm_core.network.logits import class_logits


@torch.enable_grad()
def input_gradient(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of the targets' logits to the images, (B, C, H, W).

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: p, (B,) int64.

    Returns:
        Logits per unit of the images.
    """
    images = images.detach().requires_grad_()
    score = class_logits(network, images).gather(1, targets[:, None]).sum()  # a sum keeps the images independent of each other
    return gradient_of(score, images)


def sum_gradients(
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    samples: int,
    at: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    batch: int,
    passes: PassCounter,
) -> Tensor:
    """Return the weighted sum of gradients at several points for each image.

    It is (B, C, H, W). An image's gradients are added in the order of the samples, whatever the batch.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,) int64.
        samples: points per image.
        at: indices of n images and of n samples -> the points (n, C, H, W), and weights that multiply the gradients there.
        batch: at most this many points go through the network at once; they may belong to different images.
        passes: counter of the passes.
    """
    total, count = torch.zeros_like(images), len(images)
    for start in range(0, count * samples, batch):
        rows = torch.arange(start, min(start + batch, count * samples), device=images.device)
        image, sample = rows % count, rows // count
        points, weights = at(image, sample)
        _add_cyclically(total, weights * input_gradient(network, points, targets[image]), start % count)
        passes.add(len(rows))
    return total


def _add_cyclically(total: Tensor, rows: Tensor, first: int) -> None:
    """Add rows to those of `total`, from the `first` on, beginning again at its end.

    No two rows are added to the same one at once: `index_add_` adds those in any order on CUDA, and rounds otherwise in each call.
    """
    while len(rows):
        target = total[first : first + len(rows)]
        target.add_(rows[: len(target)])
        rows, first = rows[len(target) :], 0


def maps_of_gradients(job: ExplainJob, to_signed: Callable[[Tensor, Tensor], Tensor]) -> RawMaps:
    """Compute maps of the gradients of a job's targets to its images.

    Args:
        to_signed: images and gradients, (b, C, H, W) each -> signed values of the pixels, (b, H, W).
    """
    values = []
    for images, targets in zip(torch.split(job.images, job.batch), torch.split(job.targets, job.batch), strict=True):
        output = job.layer_output or forward_to(job.classifier.module, None, images)
        values.append(to_signed(images, output.gradients(targets)))
        job.passes.add(len(images))
    return maps_of_signed(torch.cat(values))


def maps_of_signed(values: Tensor) -> RawMaps:
    """Return the maps of signed values of the pixels, (B, H, W).

    A map is N of the absolute values: a pixel that is evidence against the class is salient, too.
    """
    return RawMaps(normalise(values.abs()), signed=values)


def pixel_shares(attributions: Tensor) -> Tensor:
    """Sum additive attributions (B, C, H, W) over the channels, (B, H, W).

    It gives a pixel its share of f(x) - f(baseline), with its sign.
    """
    return attributions.sum(1)


def strongest_channel(gradients: Tensor) -> Tensor:
    """Return each pixel's gradient in the channel where it is largest, (B, H, W).

    Its absolute value is the largest over the channels, the map of Simonyan et al., Section 3.1; of equal ones the first counts.

    Args:
        gradients: (B, C, H, W).
    """
    return gradients.gather(1, gradients.abs().argmax(1, keepdim=True))[:, 0]
