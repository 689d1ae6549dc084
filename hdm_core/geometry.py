"""Affine map between the pixels of a photograph and those of a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar

from torch import Tensor

Coordinate = TypeVar("Coordinate", float, Tensor)
Box = tuple[float, float, float, float]
Size = tuple[int, int]
Rounding = Literal["nearest", "down"]


@dataclass(frozen=True)
class Geometry:
    """Affine map (u, v) of the input <-> (x, y) of the photograph, invertible.

    x = left + u (right - left) / width, and y likewise. Coordinates are continuous: pixel i covers i to i + 1, and its centre is i + 0.5.
    The axes are scaled independently and never rotated: the photograph is upright.

    Attributes:
        box: (left, top, right, bottom), the input's edges in pixels of the photograph; beyond the photograph where the input is filled.
        size: height and width of the input, in pixels.
    """

    box: Box
    size: Size

    @classmethod
    def of_resize(cls, photograph: Size, resized: Size, size: Size, rounding: Rounding = "nearest") -> Geometry:
        """Return the map of a resize and a centred crop or fill.

        Args:
            photograph: width and height of the photograph.
            resized: width and height after the resize.
            size: height and width of the input.
            rounding: of half a pixel at the crop, see `crop_start`.
        """
        (width, height), (resized_width, resized_height), (rows, columns) = photograph, resized, size
        left, top = crop_start(resized_width, columns, rounding), crop_start(resized_height, rows, rounding)
        across, down = width / resized_width, height / resized_height
        return cls((left * across, top * down, (left + columns) * across, (top + rows) * down), size)

    def to_photograph(self, u: Coordinate, v: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Return the points (x, y) of the photograph that (u, v) of the input show."""
        left, top, right, bottom = self.box
        height, width = self.size
        return left + u * (right - left) / width, top + v * (bottom - top) / height

    def to_input(self, x: Coordinate, y: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Return the points (u, v) of the input that show (x, y) of the photograph."""
        left, top, right, bottom = self.box
        height, width = self.size
        return (x - left) * (width / (right - left)), (y - top) * (height / (bottom - top))

    def visible(self, width: int, height: int) -> Box:
        """Return the part of a photograph of this size that the input shows.

        It is (left, top, right, bottom) in pixels of the photograph.
        """
        left, top, right, bottom = self.box
        return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def crop_start(length: int, crop: int, rounding: Rounding = "nearest") -> int:
    """Return the first pixel of a centred crop, rounded and padded as in torchvision.

    It is negative where the crop is larger.

    Args:
        rounding: of half a pixel: "nearest" even number, as in torchvision and timm, or "down", as in transformers.
    """
    if crop > length:
        return -((crop - length) // 2)
    return (length - crop) // 2 if rounding == "down" else round((length - crop) / 2.0)
