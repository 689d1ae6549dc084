"""Mask optimiser: masks of many images and sizes share batches and steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss, chunk_size
from hdm_core.masking.ops import Upsampling
from hdm_core.masking.views import Shown, area, shown_pixels
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
        self._sizes, self._shapes = [*sizes, pad], [mask.shape for mask in start]
        self.masks, self.gradients = self.views_of(self.values), self.views_of(self.flat_gradients)

    def views_of(self, flat: Tensor) -> list[Tensor]:
        """Return E views, (B, 1, a, b), of a tensor laid out as `values`."""
        return [part.view(shape) for part, shape in zip(torch.split(flat, self._sizes), self._shapes, strict=False)]

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
) -> tuple[list[Tensor], list[Tensor]]:
    """Optimise masks of several sizes together, each independently (Eq. 6 and 8).

    A mask m with guide u minimises J(A X) + eta mean |g(m)|, where A is what the view of the step shows of M = g(m u), see `shown_pixels`;
    in the paper A = M. Without a guide u = 1. After every step m is clamped to [0, 1], so that |g(m)| = g(m), also where m = 0: there the
    derivative from above is taken. The view `rest` shows what a top set leaves, and there J is of the evidence that is left. With the
    setting `removal` a third term, removal J(1 - A) of that kind, is minimised in every step; the paper does not have it.

    Args:
        masks: E initial masks in [0, 1], each (B, 1, a, b).
        guides: E frozen guides of the masks' shapes, or None.

    Returns:
        The E optimised masks, and their averages over the last steps, as `average` says.
    """
    height, width = consistency.contrast.shape[-2:]
    bank = MaskBank(masks)
    blur = settings.blur * min(height, width)
    upsamplings = [Upsampling((mask.shape[-2], mask.shape[-1]), height, width, mask, blur) for mask in masks]
    chunks = list(bank.chunks(consistency.batch))
    image = torch.arange(len(consistency), device=bank.values.device)
    indices = [torch.cat([image[part] for _, part in pieces]) for pieces in chunks]
    optimiser = torch.optim.Adam([bank.values], lr=settings.learning_rate, fused=True)
    bank.values.grad = bank.flat_gradients
    averaged = max(1, round(settings.average * settings.steps))
    total = torch.zeros_like(bank.values)
    for step, background in enumerate(consistency.noise_backgrounds(settings.steps)):
        views = [settings.views[(step + e) % len(settings.views)] for e in range(len(masks))]
        shares = [area(step, e, *settings.areas) for e in range(len(masks))]
        for pieces, index in zip(chunks, indices, strict=True):
            applied = [upsamplings[e](_guided(bank.masks[e][part], guides[e], part)) for e, part in pieces]
            shown = [shown_pixels(mask, views[e], shares[e], settings.edge) for (e, _), mask in zip(pieces, applied, strict=True)]
            gradients = _gradients(shown, index, background, consistency, settings.removal)
            for (e, part), view, gradient in zip(pieces, shown, gradients, strict=True):
                to_mask = _guided(upsamplings[e].adjoint(view.to_mask(gradient)), guides[e], part)
                bank.gradients[e][part] = to_mask.add_(upsamplings[e].weights, alpha=settings.eta)
        optimiser.param_groups[0]["lr"] = _learning_rate(step, settings)
        optimiser.step()
        bank.values.clamp_(0, 1)
        if step >= settings.steps - averaged:
            total += bank.values
    return bank.masks, bank.masks if averaged == 1 else bank.views_of(total / averaged)


def _gradients(
    shown: Sequence[Shown], index: Tensor, background: Tensor | None, consistency: ConsistencyLoss, removal: float
) -> Sequence[Tensor]:
    """Return the gradient to the pixels of every view.

    It has the term that `removal` weighs.
    """
    pixels, rows = torch.cat([view.pixels for view in shown]), [len(view.pixels) for view in shown]
    is_rest = None
    if any(view.is_rest for view in shown):
        is_rest = torch.cat([torch.full((count,), view.is_rest, device=index.device) for view, count in zip(shown, rows, strict=True)])
    gradient = consistency.gradient(pixels, index, background, is_rest)
    if removal:
        everywhere = torch.ones_like(index, dtype=torch.bool)
        gradient.sub_(consistency.gradient(1 - pixels, index, background, everywhere), alpha=removal)
    return torch.split(gradient, rows)


def _learning_rate(step: int, settings: DMSettings) -> float:
    """Return the learning rate of a step; a cosine ends near a twentieth."""
    if settings.schedule == "constant":
        return settings.learning_rate
    return settings.learning_rate * (0.05 + 0.95 * (1 + math.cos(math.pi * step / settings.steps)) / 2)


def _guided(values: Tensor, guide: Tensor | None, part: slice) -> Tensor:
    """Multiply values by their guide, if there is one."""
    return values if guide is None else values * guide[part]
