"""The mask optimiser: many masks of many images and sizes in one batch of the network, one optimiser step for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss, chunk
from hdm_core.masking.ops import Upsampling
from hdm_core.settings import DMSettings


class MaskBank:
    """Masks of E sizes for B images in one block of memory, so that one optimiser step moves all.

    Attributes:
        values, gradients: the block, 1-D.
        masks, slopes: E views each, (B, 1, a, b), of values and gradients.
    """

    def __init__(self, start: Sequence[Tensor]) -> None:
        sizes = [mask.numel() for mask in start]
        # Filled up so that every thread's share is whole vectors: what is left over from those is rounded differently.
        spare = -sum(sizes) % (16 * torch.get_num_threads())
        self.values = torch.cat([*(mask.detach().flatten() for mask in start), start[0].new_zeros(spare)])
        self.flat_gradients = torch.zeros_like(self.values)
        shapes = [mask.shape for mask in start]
        self.masks = [part.view(shape) for part, shape in zip(torch.split(self.values, [*sizes, spare]), shapes, strict=False)]
        self.gradients = [part.view(shape) for part, shape in zip(torch.split(self.flat_gradients, [*sizes, spare]), shapes, strict=False)]

    def chunks(self, batch: int) -> Iterator[list[tuple[int, slice]]]:
        """All masks, about `batch` at a time, as pieces (size, images): chunks go across sizes, so that they are full."""
        images = len(self.masks[0])
        rows, start = len(self.masks) * images, 0
        while start < rows:
            stop = start + chunk(rows - start, batch)
            yield [
                (size, slice(max(start - size * images, 0), min(stop - size * images, images)))
                for size in range(start // images, -(-stop // images))
            ]
            start = stop


@torch.no_grad()
def optimize_masks(
    masks: Sequence[Tensor], guides: Sequence[Tensor | None], consistency: ConsistencyLoss, settings: DMSettings
) -> list[Tensor]:
    """Trains masks of several sizes together, each as if it were alone (Eq. 6 and 8).

    A mask m with guide u minimises J(g(m u), X) + eta mean |g(m)|; without a guide u = 1. After every step it is clamped to [0, 1],
    so that |g(m)| = g(m), also where m = 0: the term's slope there is the one that the mask would feel if it grew. With `removal` it
    minimises removal (f_p((1 - g(m u)) X) - f_p(baseline))^2 beside these two, which the paper does not have.

    Args:
        masks: E starting values in [0, 1], each (B, 1, a, b).
        guides: E frozen guides of the masks' shapes, or None.

    Returns:
        The E trained masks.
    """
    height, width = consistency.contrast.shape[-2:]
    bank = MaskBank(masks)
    scale = [Upsampling((mask.shape[-2], mask.shape[-1]), height, width, mask) for mask in masks]
    chunks = list(bank.chunks(consistency.batch))
    emptied = consistency.removal()
    image = torch.arange(len(consistency), device=bank.values.device)
    indices = [torch.cat([image[part] for _, part in pieces]) for pieces in chunks]
    optimiser = torch.optim.Adam([bank.values], lr=settings.learning_rate, fused=True)
    bank.values.grad = bank.flat_gradients
    for _ in range(settings.steps):
        backdrop = consistency.noise_background()
        for pieces, index in zip(chunks, indices, strict=True):
            applied = torch.cat([scale[e](_guided(bank.masks[e][part], guides[e], part)) for e, part in pieces])
            gradient = consistency.gradient(applied, index, backdrop)
            if settings.removal:
                gradient.sub_(emptied.gradient(1 - applied, index, backdrop), alpha=settings.removal)
            for (e, part), slope in zip(pieces, torch.split(gradient, [part.stop - part.start for _, part in pieces]), strict=True):
                bank.gradients[e][part] = _guided(scale[e].adjoint(slope), guides[e], part).add_(scale[e].weights, alpha=settings.eta)
        optimiser.step()
        bank.values.clamp_(0, 1)
    return bank.masks


def _guided(values: Tensor, guide: Tensor | None, part: slice) -> Tensor:
    return values if guide is None else values * guide[part]
