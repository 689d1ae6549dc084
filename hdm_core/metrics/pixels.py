"""Numbers of pixels: exact shares, and the points of a curve."""

from __future__ import annotations


def share(pixels: int, part: int, whole: int) -> int:
    """Return round(pixels * part / whole), halves up, in integers."""
    return (2 * part * pixels + whole) // (2 * whole)


def boundaries(pixels: int, points: int = 101) -> list[int]:
    """Return the number of pixels that each point of a curve has changed.

    It is round(i * pixels / (points - 1)) for i = 0 .. points - 1.
    """
    return [share(pixels, i, points - 1) for i in range(points)]
