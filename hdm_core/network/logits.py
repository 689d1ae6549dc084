"""Checked logits of a network, and the classes to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from hdm_core.integers import as_integers

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
        targets: one class for all images, or one per image, as Python, numpy or torch write integers.

    Raises:
        ValueError: if the number of targets is not the number of images, or a target is no class of the network.
        TypeError: if targets are not integers.
    """
    if targets is None:
        return logits.argmax(1)
    batch, classes = logits.shape
    numbers = as_integers("targets", targets)
    if numbers.ndim == 0:
        numbers = numbers.expand(batch).clone()
    if numbers.shape != (batch,):
        raise ValueError(f"{batch} images need {batch} targets; the targets given have shape {tuple(numbers.shape)}")
    wrong = numbers[(numbers < 0) | (numbers >= classes)]
    if wrong.numel():
        raise ValueError(f"target {int(wrong[0])} is no class of this network: it has {classes}, numbered from 0")
    return numbers.to(logits.device)
