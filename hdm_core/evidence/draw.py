"""Drawing of pieces of evidence on their photograph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_DIMMED = 0.35  # brightness of what belongs to no piece

# Borders of the pieces in turn: colours that also stay apart for colour-blind readers (Okabe and Ito).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


def draw_pieces(image: Image.Image, pieces: NDArray[np.bool_], first: int = 0) -> Image.Image:
    """Draw pieces as they are, with a coloured border, and the rest grey and dimmed.

    Args:
        image: the crop that the network saw, W x H.
        pieces: (N, H, W), disjoint.
        first: number of the first piece, from 0, which has the colour of that number.

    Raises:
        ValueError: if the pieces have another size than the image.
    """
    if pieces.shape[1:] != (image.height, image.width):
        raise ValueError(f"pieces of shape {pieces.shape[1:]} do not fit an image of {image.width} x {image.height} pixels")
    colour = np.asarray(image.convert("RGB"), np.float64)
    grey = colour.mean(2, keepdims=True).repeat(3, 2) * _DIMMED
    shown: NDArray[np.bool_] = np.logical_or.reduce(pieces)
    drawn = np.where(shown[..., None], colour, grey).round().astype(np.uint8)
    for number, piece in enumerate(pieces, first):
        drawn[_border(piece)] = COLOURS[number % len(COLOURS)]
    return Image.fromarray(drawn)


def draw_borders(pieces: NDArray[np.bool_]) -> Image.Image:
    """Draw the borders of pieces alone, in their colours, to lay over a photograph.

    Args:
        pieces: (N, H, W), disjoint.

    Returns:
        An RGBA picture, transparent but for the borders, which are up to two pixels thick.
    """
    drawn = np.zeros((*pieces.shape[1:], 4), np.uint8)
    for number, piece in enumerate(pieces):
        outer = _border(piece)
        drawn[outer | _border(piece & ~outer)] = (*COLOURS[number % len(COLOURS)], 255)
    return Image.fromarray(drawn)


def _border(piece: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels of a piece that touch a pixel outside it, or the edge."""
    inner = np.pad(piece, 1)
    touching = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    border: NDArray[np.bool_] = piece & ~touching
    return border
