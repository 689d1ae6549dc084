"""Layer that a CAM looks at, with the place of rows and columns in its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor, nn

from hdm_core.network.tokens import TokenGrid

Axes = tuple[int, int, int]
FIRST: Axes = (1, 2, 3)
LAST: Axes = (3, 1, 2)


@dataclass(frozen=True)
class TargetLayer:
    """Layer that a CAM looks at, with the axes of its output.

    Attributes:
        module: a submodule of the network.
        axes: axes of the channels, the rows and the columns; (3, 1, 2) if the output is channels last, (B, h, w, K).
        grid: place of the patches if the output is tokens (B, N, K), which have the channels last; else None.
    """

    module: nn.Module
    axes: Axes = FIRST
    grid: TokenGrid | None = None

    def fits(self, output: object) -> TypeGuard[Tensor]:
        """Return whether an output of the layer holds its maps."""
        if not isinstance(output, Tensor):
            return False
        return output.ndim == 4 if self.grid is None else output.ndim == 3 and output.shape[1] == self.grid.tokens

    def to_maps(self, output: Tensor) -> Tensor:
        """Return the layer's output as (B, K, h, w)."""
        if self.grid is not None:
            return self.grid.to_maps(output)
        return output if self.axes == FIRST else output.permute(0, *self.axes)

    def from_maps(self, maps: Tensor, output: Tensor) -> Tensor:
        """Return maps (B, K, h, w) in the layout of the layer's output.

        They are contiguous where that is another layout, as the output was.

        Args:
            output: of the layer for the same images; tokens that are no patch of the image are taken from it.
        """
        if self.grid is not None:
            return self.grid.from_maps(maps, output)
        return maps if self.axes == FIRST else maps.permute(0, *(1 + self.axes.index(axis) for axis in FIRST)).contiguous()


def checked_map(layer: nn.Module, output: object, images: int) -> Tensor:
    """Return a layer's output if it is maps or tokens of each image.

    Raises:
        TypeError: if the output is not a tensor of four axes, or of three for tokens, with `images` along the first.
    """
    name = type(layer).__name__
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        raise TypeError(f"the target layer must return a tensor (B, K, h, w) or tokens (B, N, K); {name} does not")
    if len(output) != images:
        raise TypeError(f"the target layer must return one map per image; {name} returns {len(output)} for {images}, such as windows")
    return output


def as_floats(output: Tensor) -> Tensor:
    """Return a layer's output as numbers: that of a quantised layer holds codes."""
    return output.dequantize() if output.is_quantized else output
