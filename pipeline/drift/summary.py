"""Drift in numbers: means over the images with their intervals, of all images and by class, and the images that drifted most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METHODS, METRICS
from pipeline.drift.statistics import Estimate, estimates

# What is summarised: its id -> its column of drift.parquet.
QUANTITIES = {
    "flips": "flipped",
    "probability": "probability_change",
    "drift": "drift",
    "spearman": "spearman",
    "ssim": "ssim",
    "overlap": "overlap",
    **{metric: f"{metric}_change" for metric in METRICS},
}


@dataclass(frozen=True)
class Statistic:
    """A quantity's mean over images.

    Attributes:
        class_name: whose images; None for all.
        estimate: with `p` only where the quantity is a change, which may be 0 by chance.
    """

    method: str
    class_name: str | None
    quantity: str
    estimate: Estimate


def summarise(table: pa.Table) -> Iterator[Statistic]:
    """Every quantity of every method, of all images and then of each class, the one that drifted most first.

    Args:
        table: of the schema DRIFT.
    """
    for method in METHODS.sort(table["method"].unique().to_pylist()):
        rows = table.filter(pc.equal(table["method"], method))
        values = np.stack([_numbers(rows, column) for column in QUANTITIES.values()], axis=1)
        yield from _statistics(method, None, values)
        classes = rows["class_name"].combine_chunks().dictionary_encode()
        codes = pc.fill_null(classes.indices, -1).to_numpy(zero_copy_only=False)
        found = [list(_statistics(method, name, values[codes == code])) for code, name in enumerate(classes.dictionary.to_pylist())]
        for statistics in sorted(found, key=_drifted):
            yield from statistics


def worst(table: pa.Table) -> list[int]:
    """The places, among the table's images, of those whose maps could be compared: the largest drift first, in the mean of the methods.

    Of images that drifted alike a flipped one comes first, then the one whose probability changed most, then that of the earlier row.
    """
    drift, flips, change = (_by_image(table, quantity) for quantity in ("drift", "flips", "probability"))
    order = np.lexsort((-np.abs(change), -flips, -drift))
    return [int(image) for image in order if drift[image] >= 0]


def flipped(table: pa.Table) -> list[int]:
    """The places of the images that are answered with another class, the surest new answer first."""
    flips, change = _by_image(table, "flips"), _by_image(table, "probability")
    after = _numbers(table, "probability_after").reshape(len(flips), -1).max(1)
    return [int(image) for image in np.lexsort((-np.abs(change), -after)) if flips[image] > 0]


def _statistics(method: str, class_name: str | None, values: NDArray[np.float64]) -> Iterator[Statistic]:
    for (quantity, column), found in zip(QUANTITIES.items(), estimates(values), strict=True):
        signed = column.endswith("_change")
        yield Statistic(method, class_name, quantity, found if signed else Estimate(found.n, found.mean, found.low, found.high))


def _drifted(statistics: list[Statistic]) -> tuple[float, str]:
    """What classes are sorted by: the mean drift, the largest first and none at all last, then the name."""
    (mean,) = (statistic.estimate.mean for statistic in statistics if statistic.quantity == "drift")
    return 1.0 if mean is None else -mean, str(statistics[0].class_name)


def _numbers(table: pa.Table, column: str) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = pc.cast(table[column], pa.float64()).to_numpy()
    return numbers


def _by_image(table: pa.Table, quantity: str) -> NDArray[np.float64]:
    """A quantity's mean over the methods of each image; -1 where there is none."""
    values = _numbers(table, QUANTITIES[quantity]).reshape(-1, len(table["method"].unique()))
    there = np.isfinite(values)
    sums = np.where(there, values, 0).sum(1)
    means: NDArray[np.float64] = np.divide(sums, there.sum(1), out=np.full(len(values), -1.0), where=there.any(1))
    return means
