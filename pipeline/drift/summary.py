"""Statistics of a comparison, over all images and by class, and image rankings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METHODS, METRICS
from pipeline.tables.bootstrap import Estimate, estimates

# Quantities that are summarised: id -> column of drift.parquet.
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
    """Mean of one quantity over the images of one method.

    Attributes:
        class_name: class of the images; None for all images.
        estimate: has `p` only if the quantity is a signed change, whose mean is compared with 0.
    """

    method: str
    class_name: str | None
    quantity: str
    estimate: Estimate


def summarise(table: pa.Table) -> Iterator[Statistic]:
    """Yield all statistics of each method, over all images and then by class.

    The class with the largest mean drift comes first.

    Args:
        table: rows of the schema DRIFT.
    """
    for method in METHODS.sort(table["method"].unique().to_pylist()):
        rows = table.filter(pc.equal(table["method"], method))
        values = np.stack([_column(rows, column) for column in QUANTITIES.values()], axis=1)
        yield from _statistics(method, None, values)
        classes = rows["class_name"].combine_chunks().dictionary_encode()
        codes = pc.fill_null(classes.indices, -1).to_numpy(zero_copy_only=False)
        by_class = [list(_statistics(method, name, values[codes == code])) for code, name in enumerate(classes.dictionary.to_pylist())]
        for statistics in sorted(by_class, key=_class_sort_key):
            yield from statistics


def rank_by_drift(table: pa.Table) -> list[int]:
    """Rank the images with comparable maps by mean drift over the methods, descending.

    Ties are broken by flipped first, then by the larger change of probability, then by row.

    Returns:
        Indices among the images of the table.
    """
    drift, flips, change = (_by_image(table, quantity) for quantity in ("drift", "flips", "probability"))
    order = np.lexsort((-np.abs(change), -flips, -drift))
    return [int(image) for image in order if drift[image] >= 0]


def rank_flipped(table: pa.Table) -> list[int]:
    """Rank the images whose explained class changed, highest new probability first.

    Returns:
        Indices among the images of the table.
    """
    flips, change = _by_image(table, "flips"), _by_image(table, "probability")
    after = _column(table, "probability_after").reshape(len(flips), -1).max(1)
    return [int(image) for image in np.lexsort((-np.abs(change), -after)) if flips[image] > 0]


def _statistics(method: str, class_name: str | None, values: NDArray[np.float64]) -> Iterator[Statistic]:
    for (quantity, column), estimate in zip(QUANTITIES.items(), estimates(values), strict=True):
        signed = column.endswith("_change")
        yield Statistic(method, class_name, quantity, estimate if signed else replace(estimate, p=None))


def _class_sort_key(statistics: list[Statistic]) -> tuple[float, str]:
    """Return the sort key: mean drift, descending, None last; then class name."""
    (mean,) = (statistic.estimate.mean for statistic in statistics if statistic.quantity == "drift")
    return 1.0 if mean is None else -mean, str(statistics[0].class_name)


def _column(table: pa.Table, column: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = pc.cast(table[column], pa.float64()).to_numpy()
    return values


def _by_image(table: pa.Table, quantity: str) -> NDArray[np.float64]:
    """Average a quantity over the methods of each image; -1 without a value."""
    values = _column(table, QUANTITIES[quantity]).reshape(-1, len(table["method"].unique()))
    valid = np.isfinite(values)
    sums = np.where(valid, values, 0).sum(1)
    means: NDArray[np.float64] = np.divide(sums, valid.sum(1), out=np.full(len(values), -1.0), where=valid.any(1))
    return means
