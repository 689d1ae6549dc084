"""Average drop and increase: what is left of the target's probability when only the most salient pixels are shown."""

from __future__ import annotations

from torch import Tensor

# The shares of pixels that are muted, in per cent.
REMOVED = (80, 70)


def drop_and_increase(clean: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """max(0, Y - O) / Y and [Y < O] (Section 4.5): probabilities Y untouched and O with most pixels muted, any shape -> the same."""
    return (clean - kept).clamp(min=0) / clean, (kept > clean).to(clean.dtype)
