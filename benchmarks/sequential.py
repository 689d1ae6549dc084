"""Sequential DM, as a notebook would write it: the engine's comparison."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.masking.ops import auxiliary_masks, keep_top, mask_shape
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.settings import DMSettings


def sequential_dm(network: nn.Module, image: Tensor, target: int, settings: DMSettings, passes: PassCounter) -> Tensor:
    """Compute M_b (H, W) of an image (1, C, H, W) one mask at a time.

    The batch is 1 and autograd differentiates through everything.
    """
    height, width = image.shape[-2:]

    def g(v: Tensor, height: int = height, width: int = width) -> Tensor:
        return F.interpolate(v, size=(height, width), mode="bilinear", align_corners=False)

    with torch.no_grad():
        reference, masked = network(image)[0, target], network(torch.zeros_like(image))[0, target]
    unit = reference - masked if settings.relative else 1.0

    def train(mask: Tensor, guide: Tensor | None) -> Tensor:
        mask = mask.clone().requires_grad_()
        optimiser = torch.optim.Adam([mask], lr=settings.learning_rate)
        for _ in range(settings.steps):
            applied = g(mask if guide is None else mask * guide)
            loss = ((network(applied * image)[0, target] - reference) / unit) ** 2 + settings.eta * g(mask).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            passes.add(1)
        return mask.detach()

    starts = [torch.full((1, 1, *mask_shape(size, height, width)), settings.tau, device=image.device) for size in settings.sizes]
    benchmarks = [train(start, None) for start in starts]
    total = len(settings.ratios) * torch.stack([g(mask) for mask in benchmarks]).sum(0)
    previous = {(base, ratio): mask for base, mask in enumerate(benchmarks) for ratio in settings.ratios}
    for level in auxiliary_masks(settings.sizes, settings.ratios, height, width):
        for auxiliary in level:
            shape = mask_shape(auxiliary.size, height, width)
            mask = train(g(benchmarks[auxiliary.base], *shape), g(previous[auxiliary.base, auxiliary.ratio], *shape))
            total += g(mask)
            previous[auxiliary.base, auxiliary.ratio] = mask
    return keep_top(total, settings.keep_fraction)[0, 0]
