"""Run-length encoding of masks, as COCO's annotations have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_OFFSET, _BITS = 48, 5  # characters from "0" to "o" hold six bits: five of the number, the sixth says that more follow
_MORE, _SIGN = 1 << _BITS, 1 << (_BITS - 1)
_MOST_BITS = 60  # of a number: far more than an image has pixels


def decode_counts(text: str) -> list[int]:
    """Decode the run lengths of a compressed run-length encoding.

    A number is written in groups of five bits, the lowest first, and with a sign. From the fourth run on, it is the difference to the
    run two before (COCO's API, maskApi.c).

    Raises:
        ValueError: if a character is no part of the encoding, or the last number is cut.
    """
    counts: list[int] = []
    number = shift = 0
    for character in text:
        group = ord(character) - _OFFSET
        if not 0 <= group < 2 * _MORE or shift >= _MOST_BITS:
            raise ValueError(f"the character {character!r} is no part of a run-length encoding")
        number |= (group & (_MORE - 1)) << shift
        shift += _BITS
        if group & _MORE:
            continue
        if group & _SIGN:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError("the run-length encoding is cut")
    return counts


def decode_mask_of_runs(counts: Sequence[int] | str, height: int, width: int) -> NDArray[np.bool_]:
    """Decode a mask (height, width) from its run lengths.

    Runs go down the columns; the first is outside, then they alternate.

    Args:
        counts: run lengths in pixels, or their compressed text.

    Raises:
        ValueError: if a run is negative or no whole number, or the runs do not add up to the mask's size.
    """
    runs = decode_counts(counts) if isinstance(counts, str) else list(counts)
    if any(type(run) is not int or run < 0 for run in runs):
        raise ValueError("a run of a run-length encoding must be a whole number from 0")
    if sum(runs) != height * width:
        raise ValueError(f"the runs have {sum(runs)} pixels, and a mask of {width} x {height} has {height * width}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, np.asarray(runs, dtype=np.int64)).reshape((width, height)).T
