"""Suspected places: cells where a class's maps have more energy than others'."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from pipeline.audit.energy import GRID, Energies, Floats
from pipeline.audit.settings import AuditSettings
from pipeline.tables.wilcoxon import holm

_OTHERS = 2000  # maps of other classes that a class is compared with; more are sampled
_PERMUTATIONS = 1000
_BATCH = 250  # permutations in memory at once
_FEW = 10  # permutations as large as the statistic, below which their tail is fitted

# Cells that are part of a place have at least this share of the largest statistic.
_PART = 0.5

_MIDDLE = 0.2  # of a place's pixels, that are in the middle ninth of the image


@dataclass(frozen=True)
class Suspicion:
    """A place at which a class has more energy than others, more than by chance.

    Attributes:
        cells: (GRID, GRID) bool, cells of the place.
        p: of the largest statistic, corrected over all cells and classes.
        rows: images of the class, those with the most energy at the place first.
        share: mean share of the energy at the place, of the class.
        other_share: the same of the other classes.
    """

    class_name: str
    cells: NDArray[np.bool_]
    p: float
    rows: NDArray[np.int64]
    share: float
    other_share: float


def suspicions(energies: Energies, settings: AuditSettings, on_class: Callable[[int], None]) -> list[Suspicion]:
    """Test every class against the others, cell by cell.

    The statistic of a cell is the larger one of two standardised mean differences: of the energy, and of the energy above the 95th
    percentile of all images, which shows a mark that only some images have. Labels are permuted, and the largest statistic of all cells is
    compared with those of the permutations (max-T, Westfall and Young 1993), which corrects over the cells; Holm corrects over classes.

    Args:
        on_class: called with 1 after each class.
    """
    names = [name for name in energies.sizes if energies.of(name).sum() >= settings.min_images]
    if len(energies.sizes) < 2 or not names:
        return []
    tests = []
    for name in names:
        tests.append(_test(energies, name, settings))
        on_class(1)
    corrected = holm([p for p, _ in tests])
    found = []
    for name, p, (_, statistic) in zip(names, corrected, tests, strict=True):
        if p > settings.alpha:
            continue
        grid = statistic.reshape(GRID, GRID)
        cells = _connected(grid >= max(_PART * grid.max(), 0), int(statistic.argmax()))
        own, others = (energies.cells[mask] for mask in (energies.of(name), ~energies.of(name)))
        at_place = own[:, cells.ravel()].sum(1)
        order = np.argsort(-at_place, kind="stable")
        other_share = float(others[:, cells.ravel()].sum(1).mean())
        found.append(Suspicion(name, cells, p, energies.rows[energies.of(name)][order], float(at_place.mean()), other_share))
    return found


def is_frame(cells: NDArray[np.bool_]) -> bool:
    """Return whether cells go around the whole image."""
    ring = int(cells[0].sum() + cells[-1].sum() + cells[:, 0].sum() + cells[:, -1].sum())
    return bool(cells.any(0).all() and cells.any(1).all() and ring >= 2 * GRID)


def place_name(pixels: NDArray[np.bool_]) -> str:
    """Return the name of a place in words, such as "top-left corner".

    It is by the third of the image in which the middle of its box is.

    Args:
        pixels: (H, W), or cells of the grid; at least one is true.
    """
    vertical, horizontal = (
        _third(np.flatnonzero(pixels.any(axis)), pixels.shape[1 - axis], names)
        for axis, names in ((1, ("top", "", "bottom")), (0, ("left", "", "right")))
    )
    if vertical and horizontal:
        return f"{vertical}-{horizontal} corner"
    return f"{vertical or horizontal} border" if vertical or horizontal else "centre"


def in_middle(pixels: NDArray[np.bool_]) -> bool:
    """Return whether a place is in, or reaches into, the middle of the image.

    More than a fifth of it is then in the ninth of the image around its centre: objects are there in most photographs.

    Args:
        pixels: (H, W), at least one is true.
    """
    height, width = pixels.shape
    middle = pixels[height // 3 : height - height // 3, width // 3 : width - width // 3]
    return bool(middle.sum() > _MIDDLE * pixels.sum())


def _third(numbers: NDArray[np.int64], side: int, names: tuple[str, str, str]) -> str:
    return names[int(3 * (numbers[0] + numbers[-1] + 1) / 2 // side)]


def _test(energies: Energies, name: str, settings: AuditSettings) -> tuple[float, Floats]:
    """Return the p-value of a class's largest statistic, and all of them (cells,)."""
    rng = np.random.default_rng(settings.seed)
    own = energies.of(name)
    others = np.flatnonzero(~own)
    if len(others) > _OTHERS:
        others = np.sort(rng.choice(others, _OTHERS, replace=False))
    pooled = energies.cells[np.concatenate([np.flatnonzero(own), others])]
    count = int(own.sum())
    # The excess shows a mark that only some of the class's images have.
    values = np.concatenate([pooled, np.maximum(pooled - np.quantile(pooled, 0.95, axis=0), 0)], 1)
    spread = values.std(0)
    values = np.divide(values - values.mean(0), spread, out=np.zeros_like(values), where=spread > 0)
    scale = np.sqrt(count * len(pooled) / max(len(others), 1))
    statistic = values[:count].mean(0) * scale
    by_cell = np.maximum(*np.split(statistic, 2))
    maxima = _permuted_maxima(values, count, scale, rng)
    # A fitted tail may not go below what all permutations could show: 5 of 10 images are one of 252 choices.
    return max(tail_probability(float(by_cell.max()), maxima), 1 / math.comb(len(values), count)), by_cell


def tail_probability(statistic: float, maxima: Floats) -> float:
    """Return the p-value of a statistic among those of permutations.

    If fewer than ten are as large, it is the tail of a gamma distribution with their mean, variance and skewness (Winkler et al. 2016),
    since a correction over many classes needs values below 1 / permutations.
    """
    exceeding = int((maxima >= statistic).sum())
    if exceeding >= _FEW:
        return (exceeding + 1) / (len(maxima) + 1)
    skewness = max(float(stats.skew(maxima)), 1e-6)
    return float(stats.pearson3.sf(statistic, skewness, loc=maxima.mean(), scale=maxima.std()))


def _permuted_maxima(values: Floats, count: int, scale: float, rng: np.random.Generator) -> Floats:
    """Return the largest statistic of every permutation."""
    maxima = []
    for _ in range(_PERMUTATIONS // _BATCH):
        chosen = np.zeros((_BATCH, len(values)))
        np.put_along_axis(chosen, rng.random(chosen.shape).argpartition(count - 1, axis=1)[:, :count], 1.0, axis=1)
        maxima.append((chosen @ values / count * scale).max(1))
    return np.concatenate(maxima)


def _connected(mask: NDArray[np.bool_], start: int) -> NDArray[np.bool_]:
    """Return the cells of a mask connected with one of them, corners included."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    connected: NDArray[np.bool_] = labels == labels.flat[start]
    return connected
