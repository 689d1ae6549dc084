"""Metrics of several baselines side by side, and their rank correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hdm_core import METRICS, controls_last, is_control, method_title, metric_title

_LEAST = 3  # methods; the ranks of two are equal or opposite by chance


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of the methods' means between two baselines.

    Attributes:
        spearman: Spearman's rho in [-1, 1], ties with their mean rank; None for fewer than 3 methods or where all means are equal.
        methods: number of methods with a mean on both baselines; the controls do not count.
    """

    first: str
    second: str
    spearman: float | None
    methods: int


@dataclass(frozen=True)
class BaselineTable:
    """Means of one metric by method and baseline.

    Attributes:
        means: method -> one mean per baseline; None where there is no number.
    """

    metric: str
    baselines: Sequence[str]
    means: dict[str, list[float | None]]
    agreement: Sequence[Agreement]

    @property
    def title(self) -> str:
        """Title of the metric with its direction."""
        return f"{metric_title(self.metric)} {METRICS[self.metric].arrow if self.metric in METRICS else ''}".strip()

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """Titles of the methods with their means as texts."""
        return [(method_title(m), ["-" if mean is None else f"{mean:.3f}" for mean in means]) for m, means in self.means.items()]

    @property
    def sentences(self) -> list[str]:
        """Rank correlations as texts, one per pair of baselines."""
        return [
            f"{each.first} and {each.second}: "
            + (f"too few methods ({each.methods})" if each.spearman is None else f"{each.spearman:.2f} ({each.methods} methods)")
            for each in self.agreement
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the table as JSON."""
        return asdict(self)


def compare_baselines(table: pa.Table) -> list[BaselineTable]:
    """Put the means of every metric side by side by baseline.

    It is empty for a run with one baseline. Metrics of the map alone are left out: they are equal on all baselines.

    Args:
        table: tables.parquet.
    """
    rows = [row for row in table.to_pylist() if row.get("baseline") is not None]
    baselines = list(dict.fromkeys(row["baseline"] for row in rows))
    if len(baselines) < 2:
        return []
    means = {(row["metric"], row["method"], row["baseline"]): row["mean"] for row in rows if row["n"]}
    methods = controls_last(row["method"] for row in rows)
    found = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        if metric in METRICS and METRICS[metric].map_only:
            continue
        of_metric = {method: [means.get((metric, method, baseline)) for baseline in baselines] for method in methods}
        if any(mean is not None for row in of_metric.values() for mean in row):
            agreement = [_agreement(of_metric, baselines, i, j) for i, j in combinations(range(len(baselines)), 2)]
            found.append(BaselineTable(metric, baselines, of_metric, agreement))
    return found


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, ties with their mean rank.

    It is Pearson's correlation of the ranks.

    It is None for fewer than 3 values, or where all values of one side are equal.
    """
    if len(one) < _LEAST:
        return None
    first, second = (_ranks(np.asarray(values, np.float64)) for values in (one, other))
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / norm if norm else None


def layout_baselines(tables: Sequence[BaselineTable]) -> RenderableType:
    """Lay out the tables for a terminal, one per metric."""
    parts: list[RenderableType] = []
    for each in tables:
        grid = Table(box=None, padding=(0, 2, 0, 0))
        for head in (each.title, *each.baselines):
            grid.add_column(Text(head))
        for title, cells in each.rows:
            grid.add_row(*map(Text, (title, *cells)))
        rank = "; ".join(each.sentences)
        parts += [Text(""), grid, Text(f"Spearman's rank correlation of the methods' means, {rank}", "dim")]
    return Group(*parts)


def _agreement(means: dict[str, list[float | None]], baselines: Sequence[str], i: int, j: int) -> Agreement:
    pairs = [(row[i], row[j]) for method, row in means.items() if not is_control(method)]
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    return Agreement(baselines[i], baselines[j], spearman([one for one, _ in both], [other for _, other in both]), len(both))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rank of each value from 1, equal values with the mean of their ranks."""
    less, equal = values[None] < values[:, None], values[None] == values[:, None]
    ranks: NDArray[np.float64] = less.sum(1) + (equal.sum(1) + 1) / 2
    return ranks
