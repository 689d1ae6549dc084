"""Checked logits of a network, and the classes to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Targets = int | Sequence[int] | Tensor | None


def class_logits(network: Callable[[Tensor], object], images: Tensor) -> Tensor:
    """Run the network and check that it returns logits (B, classes).

    Raises:
        TypeError: if the network does not return one tensor of that shape.
    """
    logits = network(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        returned = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise TypeError(f"the network must return logits (B, classes) for images {tuple(images.shape)}; it returned {returned}")
    return logits


def resolve_targets(logits: Tensor, targets: Targets) -> Tensor:
    """Return the target class of every image, (B,) int64; by default the argmax.

    Args:
        logits: (B, classes).
        targets: one class for all images, or one per image.

    Raises:
        ValueError: if the number of targets is not the number of images, or a target is no class of the network.
        TypeError: if targets are not integers.
    """
    if targets is None:
        return logits.argmax(1)
    batch, classes = logits.shape
    given = torch.as_tensor([targets] * batch if isinstance(targets, int) else targets)
    if given.is_floating_point() or given.dtype == torch.bool:
        raise TypeError(f"targets must be integers, not {given.dtype}")
    if given.shape != (batch,):
        raise ValueError(f"{batch} images need {batch} targets; the targets given have shape {tuple(given.shape)}")
    wrong = given[(given < 0) | (given >= classes)]
    if wrong.numel():
        raise ValueError(f"target {int(wrong[0])} is no class of this network: it has {classes}, numbered from 0")
    return given.to(logits.device, torch.int64)
