"""Views of a mask: the pixels that it shows while it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from hdm_core.settings import View

# Golden ratio: multiples of it, modulo 1, fill an interval evenly after any number of steps.
_GOLDEN = 0.6180339887498949
# Added per mask of a step, so that its masks are tried at different areas.
_PER_MASK = 0.37
# A quantile is that of at most about this many pixels along a side: sorting all 224 x 224 takes a CPU 4 ms, 28% of a pass of MobileNetV2.
_SIDE = 56


def area(step: int, mask: int, smallest: float, largest: float) -> float:
    """Return the share of the pixels that a top set has in a step.

    It is `smallest + (largest - smallest) frac(1/2 + phi (n + 1) + 0.37 e)` for step n and mask e, counted from 0, with the golden ratio
    phi = 0.618...: over the steps the shares fill the range evenly.
    """
    return smallest + (largest - smallest) * ((0.5 + _GOLDEN * (step + 1) + _PER_MASK * mask) % 1.0)


def quantile(masks: Tensor, share: float) -> Tensor:
    """Return the value that a share of each mask's pixels exceeds, (N, 1, 1, 1).

    It is exact for a regular grid of the pixels, at most about 56 along the shorter side.

    Args:
        masks: (N, 1, H, W).
        share: in [0, 1].
    """
    stride = max(1, min(masks.shape[-2:]) // _SIDE)
    values = masks[:, 0, stride // 2 :: stride, stride // 2 :: stride].flatten(1)
    ordered = values.sort(1, descending=True).values
    return ordered[:, int(share * (ordered.shape[1] - 1)), None, None, None]


@dataclass(frozen=True)
class Shown:
    """Pixels that a view of masks shows.

    Attributes:
        pixels: (N, 1, H, W) in [0, 1].
        slope: their derivative by the masks, (N, 1, H, W); None for 1.
        is_rest: whether they should hold no evidence of the class.
    """

    pixels: Tensor
    slope: Tensor | None = None
    is_rest: bool = False

    def to_mask(self, gradient: Tensor) -> Tensor:
        """Map a gradient to the pixels to the gradient to the masks."""
        return gradient if self.slope is None else gradient * self.slope


def shown_pixels(masks: Tensor, view: View, share: float, edge: float) -> Shown:
    """Return the pixels that a view of masks M shows.

    `soft`: the mask itself. `top`: the set of the pixels above the quantile t of `share`, with a soft edge,
    clamp((M - t) / edge + 1/2, 0, 1). `rest`: 1 minus that set. The quantile counts as a constant.

    Args:
        masks: M, (N, 1, H, W) in [0, 1].
    """
    if view == "soft":
        return Shown(masks)
    ramp = (masks - quantile(masks, share)) / edge + 0.5
    top = ramp.clamp(0, 1)
    slope = ((ramp > 0) & (ramp < 1)).to(masks.dtype) / edge
    return Shown(top, slope) if view == "top" else Shown(1 - top, -slope, is_rest=True)
