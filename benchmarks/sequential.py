"""DM as a notebook would have it: what the engine is compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.masking.consistency import PassCounter
from hdm_core.masking.ops import auxiliary_masks, keep_top
from hdm_core.settings import DMSettings


def sequential_dm(network: nn.Module, image: Tensor, target: int, settings: DMSettings, passes: PassCounter) -> Tensor:
    """Mask after mask, batch 1, autograd through everything: image (1, C, H, W) -> M_b (H, W)."""
    height, width = image.shape[-2:]

    def g(v: Tensor, height: int = height, width: int = width) -> Tensor:
        return F.interpolate(v, size=(height, width), mode="bilinear", align_corners=False)

    with torch.no_grad():
        clean, blank = network(image)[0, target], network(torch.zeros_like(image))[0, target]
    unit = clean - blank if settings.relative else 1.0

    def train(mask: Tensor, guide: Tensor | None) -> Tensor:
        mask = mask.clone().requires_grad_()
        optimiser = torch.optim.Adam([mask], lr=settings.learning_rate)
        for _ in range(settings.steps):
            applied = g(mask if guide is None else mask * guide)
            loss = ((network(applied * image)[0, target] - clean) / unit) ** 2 + settings.eta * g(mask).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            passes.add(1)
        return mask.detach()

    starts = [torch.full((1, 1, size, size), settings.tau, device=image.device) for size in settings.sizes]
    benchmarks = [train(start, None) for start in starts]
    total = len(settings.ratios) * torch.stack([g(mask) for mask in benchmarks]).sum(0)
    below = {(base, ratio): mask for base, mask in enumerate(benchmarks) for ratio in settings.ratios}
    for level in auxiliary_masks(settings.sizes, settings.ratios, height, width):
        for rung in level:
            side = rung.size
            mask = train(g(benchmarks[rung.base], side, side), g(below[rung.base, rung.ratio], side, side))
            total += g(mask)
            below[rung.base, rung.ratio] = mask
    return keep_top(total, settings.keep_fraction)[0, 0]
