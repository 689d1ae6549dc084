"""The one hot loop: many masks of many images optimised in one batch of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hdm_core.classifier import class_logits
from hdm_core.masks import upsample
from hdm_core.settings import DMSettings

Progress = Callable[[int], None]


@dataclass
class Passes:
    """Counts passes (a forward and a backward of one image) and tells a listener of each step's share."""

    listener: Progress | None = None
    total: int = field(default=0)

    def add(self, passes: int) -> None:
        """Notes that so many passes were just done."""
        self.total += passes
        if self.listener is not None:
            self.listener(passes)


class Consistency:
    """J(M, X) = (f_p(M X) - f_p(X))^2 for a batch of images, and its gradient to the masks (Section 3.1 of the paper).

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: X, (B, C, H, W).
        targets: p, (B,) int64.
        baseline: what a masked pixel becomes, broadcastable to X; the masked image is baseline + M (X - baseline).
        activation: "logit" or "probability", what f_p is.
        batch: how many masked images go through the network at once.
        passes: counts the work.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, activation: str, batch: int, passes: Passes
    ) -> None:
        self.network = network
        self.targets = targets
        self.baseline = baseline
        self.contrast = images - baseline
        self.probability = activation == "probability"
        self.batch = batch
        self.passes = passes
        with torch.no_grad():
            self.reference = self._activation(images, targets)

    def gradient(self, masks: Tensor) -> Tensor:
        """dJ/dM for masks (E, B, H, W), every one of an image's E masks by itself: the same shape."""
        entries, images = masks.shape[:2]
        flat = masks.detach().reshape(entries * images, 1, *masks.shape[2:])
        gradient = torch.empty_like(flat)
        for start in range(0, len(flat), self.batch):
            part = slice(start, start + self.batch)
            index = torch.arange(start, min(start + self.batch, len(flat)), device=masks.device) % images
            mask = flat[part].requires_grad_()
            baseline = self.baseline[index] if len(self.baseline) == images else self.baseline
            activation = self._activation(baseline + mask * self.contrast[index], self.targets[index])
            loss = (activation - self.reference[index]).square().sum()  # a sum: images stay independent of each other
            (gradient[part],) = torch.autograd.grad(loss, mask)
        self.passes.add(len(flat))
        return gradient.reshape(masks.shape)

    def _activation(self, images: Tensor, targets: Tensor) -> Tensor:
        logits = class_logits(self.network, images)
        scores = logits.softmax(1) if self.probability else logits
        return scores.gather(1, targets[:, None])[:, 0]


def train_masks(masks: Sequence[Tensor], guides: Sequence[Tensor | None], consistency: Consistency, settings: DMSettings) -> list[Tensor]:
    """Trains masks of several sizes together, each as if it were alone (Eq. 6 and 8).

    A mask m with guide u minimises J(g(m u), X) + eta mean |g(m)|; without a guide u = 1. After every step it is clamped to [0, 1].

    Args:
        masks: E starting values, each (B, 1, a, b).
        guides: E frozen guides of the masks' shapes, or None.

    Returns:
        The E trained masks.
    """
    height, width = consistency.contrast.shape[-2:]
    trained = [mask.detach().clone().requires_grad_() for mask in masks]
    optimiser = torch.optim.Adam(trained, lr=settings.learning_rate)
    for _ in range(settings.steps):
        optimiser.zero_grad()
        plain = [upsample(mask, height, width) for mask in trained]
        guided = [plain[e] if guide is None else upsample(trained[e] * guide, height, width) for e, guide in enumerate(guides)]
        applied = torch.stack(guided).squeeze(2)
        sparsity = torch.stack([mask.abs().mean((1, 2, 3)).sum() for mask in plain]).sum()
        torch.autograd.backward([applied, settings.eta * sparsity], [consistency.gradient(applied), None])
        optimiser.step()
        with torch.no_grad():
            for mask in trained:
                mask.clamp_(0, 1)
    return [mask.detach() for mask in trained]
