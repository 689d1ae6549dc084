"""Mask optimiser: masks of many images and sizes share batches and steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss, chunk_size
from hdm_core.masking.ops import Upsampling
from hdm_core.settings import DMSettings


class MaskBank:
    """Masks of E sizes for B images in one tensor, updated by one optimiser step.

    Attributes:
        values, flat_gradients: all masks and their gradients, 1-D.
        masks, gradients: E views each, (B, 1, a, b), of values and flat_gradients.
    """

    def __init__(self, start: Sequence[Tensor]) -> None:
        sizes = [mask.numel() for mask in start]
        # Padded so that every thread gets whole vectors: the elements left over from whole vectors are rounded differently.
        pad = -sum(sizes) % (16 * torch.get_num_threads())
        self.values = torch.cat([*(mask.detach().flatten() for mask in start), start[0].new_zeros(pad)])
        self.flat_gradients = torch.zeros_like(self.values)
        shapes = [mask.shape for mask in start]
        self.masks = [part.view(shape) for part, shape in zip(torch.split(self.values, [*sizes, pad]), shapes, strict=False)]
        self.gradients = [part.view(shape) for part, shape in zip(torch.split(self.flat_gradients, [*sizes, pad]), shapes, strict=False)]

    def chunks(self, batch: int) -> Iterator[list[tuple[int, slice]]]:
        """Split all masks into chunks of at most `batch`, each a list of (size, images).

        A chunk may span several sizes, so that chunks are full.
        """
        images = len(self.masks[0])
        rows, start = len(self.masks) * images, 0
        while start < rows:
            stop = start + chunk_size(rows - start, batch)
            yield [
                (size, slice(max(start - size * images, 0), min(stop - size * images, images)))
                for size in range(start // images, -(-stop // images))
            ]
            start = stop


@torch.no_grad()
def optimize_masks(
    masks: Sequence[Tensor], guides: Sequence[Tensor | None], consistency: ConsistencyLoss, settings: DMSettings
) -> list[Tensor]:
    """Optimise masks of several sizes together, each independently (Eq. 6 and 8).

    A mask m with guide u minimises J(g(m u), X) + eta mean |g(m)|; without a guide u = 1. After every step it is clamped to [0, 1],
    so that |g(m)| = g(m), also where m = 0: there the derivative from above is taken. With `removal` a third term,
    removal (f_p((1 - g(m u)) X) - f_p(baseline))^2, is minimised too; the paper does not have it.

    Args:
        masks: E initial masks in [0, 1], each (B, 1, a, b).
        guides: E frozen guides of the masks' shapes, or None.

    Returns:
        The E optimised masks.
    """
    height, width = consistency.contrast.shape[-2:]
    bank = MaskBank(masks)
    upsamplings = [Upsampling((mask.shape[-2], mask.shape[-1]), height, width, mask) for mask in masks]
    chunks = list(bank.chunks(consistency.batch))
    removal_loss = consistency.removal()
    image = torch.arange(len(consistency), device=bank.values.device)
    indices = [torch.cat([image[part] for _, part in pieces]) for pieces in chunks]
    optimiser = torch.optim.Adam([bank.values], lr=settings.learning_rate, fused=True)
    bank.values.grad = bank.flat_gradients
    for background in consistency.noise_backgrounds(settings.steps):
        for pieces, index in zip(chunks, indices, strict=True):
            applied = torch.cat([upsamplings[e](_guided(bank.masks[e][part], guides[e], part)) for e, part in pieces])
            gradient = consistency.gradient(applied, index, background)
            if settings.removal:
                gradient.sub_(removal_loss.gradient(1 - applied, index, background), alpha=settings.removal)
            by_piece = torch.split(gradient, [part.stop - part.start for _, part in pieces])
            for (e, part), to_upsampled in zip(pieces, by_piece, strict=True):
                to_mask = _guided(upsamplings[e].adjoint(to_upsampled), guides[e], part)
                bank.gradients[e][part] = to_mask.add_(upsamplings[e].weights, alpha=settings.eta)
        optimiser.step()
        bank.values.clamp_(0, 1)
    return bank.masks


def _guided(values: Tensor, guide: Tensor | None, part: slice) -> Tensor:
    """Multiply values by their guide, if there is one."""
    return values if guide is None else values * guide[part]
