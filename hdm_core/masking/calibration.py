"""Calibration of a map: the same ranks, values that mean missing evidence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import ranks

# Least slope of the values over the ranks, so that pixels which are not needed keep their order.
_LEAST = 0.005


@torch.no_grad()
def calibrated(maps: Tensor, consistency: ConsistencyLoss, shares: Sequence[float]) -> Tensor:
    """Return maps with the same ranks, whose values say what the class lacks.

    Let q in [0, 1) be the share of an image's pixels that rank before a pixel, and l(q) the share of the evidence that is missing where
    only these are shown, 1 - (f_p(X_q) - f_p(b)) / (f_p(X) - f_p(b)), clamped to [0, 1]. It is measured for `shares`, made to fall by the
    minimum so far, is 1 for no pixel and 0 for all, and linear in between. The pixel's value is (1 - q) (0.005 + 0.995 l(q)).

    A map that is flat or not finite, and that of an image without evidence, f_p(X) <= f_p(b), are returned unchanged. Each share costs a
    forward pass.

    Args:
        maps: (B, H, W).
        consistency: the loss of the images X that the maps are of.
        shares: rising, in (0, 1).
    """
    place = ranks(maps)
    pixels = place[0].numel()
    index = torch.arange(len(maps), device=maps.device)
    span = consistency.reference - consistency.baseline_scores
    lacks = [torch.ones_like(span)]
    for share in shares:
        shown = (place < round(share * pixels)).to(maps.dtype)[:, None]
        missing = 1 - ((consistency.scores(shown, index) - consistency.baseline_scores) / span).clamp(0, 1)
        lacks.append(torch.minimum(lacks[-1], missing))
    lacks.append(torch.zeros_like(span))
    values = _curve(torch.stack(lacks, 1), [0.0, *(round(share * pixels) / pixels for share in shares), 1.0], pixels)
    spent = torch.arange(pixels, device=maps.device, dtype=maps.dtype) / pixels
    by_rank = (1 - spent) * (_LEAST + (1 - _LEAST) * values)
    usable = (span > 0) & maps.flatten(1).isfinite().all(1) & (maps.amax((1, 2)) != maps.amin((1, 2)))
    return torch.where(usable[:, None, None], by_rank.gather(1, place.flatten(1)).view_as(maps), maps)


def _curve(points: Tensor, shares: Sequence[float], pixels: int) -> Tensor:
    """Interpolate values (B, K) at K shares to one per rank, (B, pixels)."""
    parts = []
    bounds = [round(share * pixels) for share in shares]
    for k in range(len(bounds) - 1):
        length = bounds[k + 1] - bounds[k]
        along = torch.arange(length, device=points.device, dtype=points.dtype) / max(length, 1)
        parts.append(points[:, k, None] + (points[:, k + 1] - points[:, k])[:, None] * along)
    return torch.cat(parts, 1)
