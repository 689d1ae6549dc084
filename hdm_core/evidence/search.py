"""Search for a small sufficient set among the ranked pixels of an image.

A search is a generator: it yields a set of pixels, is sent the sufficiency of that set, and returns the set that it found. So the searches
of several images are tried in common batches, although each decides on its own what to try next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from hdm_core.evidence.settings import EvidenceSettings

R = TypeVar("R")


@dataclass(frozen=True)
class Sufficient:
    """A sufficient set of pixels, (P,) bool, and its sufficiency."""

    pixels: Tensor
    sufficiency: float


Search = Generator[Tensor, float, R]


def smallest_set(order: Tensor, whole: float, cells: Tensor, settings: EvidenceSettings) -> Search[Sufficient]:
    """Search a small sufficient set among the pixels that are left of an image.

    1. Cells of the image without which the rest still suffices are dropped: first half of them at once, then half as many, at last one by
       one. This comes first: two regions that suffice alone rank alike, and the smallest top share of both has parts of each that only
       suffice together.
    2. Of the pixels in the cells that stay, the smallest of the `areas` whose top pixels suffice.
    3. Bisection between it and the area before it.

    If the score grows with the set, no cell can be left out.

    Args:
        order: indices of the pixels that are left, most salient first.
        whole: their sufficiency, of at least `kept`.
        cells: (P,) int64, the cell of every pixel of the image.
    """
    pixels = len(cells)
    found = yield from _drop_cells(Sufficient(_top(order, len(order), pixels), whole), order, cells, settings.kept)
    inside = order[found.pixels[order]]
    below, above, reached = 0, len(inside), found.sufficiency
    for area in settings.areas:
        count = max(1, round(area * pixels))
        if not below < count < above:
            continue
        sufficiency = yield _top(inside, count, pixels)
        if sufficiency >= settings.kept:
            above, reached = count, sufficiency
            break
        below = count
    return (yield from _bisect(inside, below, above, reached, pixels, settings))


def largest_number_of_trials(settings: EvidenceSettings) -> int:
    """Return the largest number of sets that `smallest_set` may try."""
    cells = settings.cells**2
    dropped, chunk = 0, cells // 2
    while chunk:
        dropped += -(-cells // chunk)
        chunk //= 2
    return dropped + len(settings.areas) + settings.bisections


def cell_numbers(height: int, width: int, cells: int, device: torch.device) -> Tensor:
    """Return the number of each pixel's cell, (H W,) int64, of cells x cells."""
    rows, columns = (torch.arange(side, device=device) * cells // side for side in (height, width))
    return (rows[:, None] * cells + columns).flatten()


def run_searches(searches: Sequence[Search[R]], measure: Callable[[Tensor, list[int]], list[float]]) -> list[R]:
    """Run searches side by side; return what each found.

    Args:
        measure: sets (N, P) bool and the search that each is of -> their sufficiency.
    """
    results: dict[int, R] = {}
    tried: dict[int, Tensor] = {}

    def advance(number: int, sufficiency: float | None) -> None:
        try:
            tried[number] = next(searches[number]) if sufficiency is None else searches[number].send(sufficiency)
        except StopIteration as stop:
            tried.pop(number, None)
            results[number] = stop.value

    for number in range(len(searches)):
        advance(number, None)
    while tried:
        numbers = list(tried)
        for number, sufficiency in zip(numbers, measure(torch.stack(list(tried.values())), numbers), strict=True):
            advance(number, sufficiency)
    return [results[number] for number in range(len(searches))]


def _top(order: Tensor, count: int, pixels: int) -> Tensor:
    """Return the set of the first `count` pixels of an order, (P,) bool."""
    shown = torch.zeros(pixels, dtype=torch.bool, device=order.device)
    shown[order[:count]] = True
    return shown


def _bisect(order: Tensor, below: int, above: int, reached: float, pixels: int, settings: EvidenceSettings) -> Search[Sufficient]:
    """Narrow the number of top pixels between too few and enough.

    Args:
        reached: sufficiency of the first `above` pixels.
    """
    for _ in range(settings.bisections):
        if above - below <= 1:
            break
        middle = (below + above) // 2
        sufficiency = yield _top(order, middle, pixels)
        if sufficiency >= settings.kept:
            above, reached = middle, sufficiency
        else:
            below = middle
    return Sufficient(_top(order, above, pixels), reached)


def _drop_cells(found: Sufficient, order: Tensor, cells: Tensor, kept: float) -> Search[Sufficient]:
    """Drop cells without which the set still suffices, the least salient first.

    A cell is as salient as its most salient pixel.
    """
    present = list(dict.fromkeys(cells[order[found.pixels[order]]].tolist()))[::-1]
    chunk = len(present) // 2
    while chunk:
        start = 0
        while start < len(present):
            dropped = present[start : start + chunk]
            if len(dropped) == len(present):
                break
            smaller = found.pixels & ~torch.isin(cells, cells.new_tensor(dropped))
            sufficiency = yield smaller
            if sufficiency >= kept:
                found = Sufficient(smaller, sufficiency)
                present = present[:start] + present[start + chunk :]
            else:
                start += chunk
        chunk //= 2
    return found
