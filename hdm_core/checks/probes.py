"""Images that a network is checked with: photographs if there are any, and noise."""

from __future__ import annotations

import torch
from torch import Tensor

# Contrast and brightness of the noise images, in spreads of the photographs. They differ, so that statistics over a batch show.
_CONTRAST, _BRIGHTNESS = (1.0, 0.3), (0.0, 1.0)
_ROUNDING = 1e-5  # of the largest value: a smaller standard deviation is that of one colour


@torch.inference_mode(False)
def probe_images(images: Tensor, count: int = 2) -> Tensor:
    """Return at most `count` of the images, and noise of about their mean and spread.

    Args:
        images: (B, C, H, W); values that are not finite become 0.

    Returns:
        (N, C, H, W) on the images' device, the noise last, seeded.
    """
    chosen = images[:count].detach().clone().nan_to_num(0, 0, 0)
    spread = chosen.std() if chosen.numel() > 1 else chosen.new_zeros(())
    # Of images of one colour the standard deviation is 0 or, by the order of a sum on some processors, rounding of their value.
    spread = torch.where(spread > _ROUNDING * chosen.abs().amax(), spread, torch.ones_like(spread))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(_CONTRAST), *chosen.shape[1:], generator=generator).to(chosen)
    contrast, brightness = (chosen.new_tensor(values).view(-1, 1, 1, 1) for values in (_CONTRAST, _BRIGHTNESS))
    return torch.cat([chosen, chosen.mean() + spread * (contrast * noise + brightness)])
