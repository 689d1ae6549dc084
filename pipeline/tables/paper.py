"""Tables 1, 2 and 3 of the paper and its ablation.

The tables name the paper's own seven metrics and show no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hdm_core import METHODS, METRICS, controls_last, is_control, method_title
from pipeline.tables.aggregate import best, of_first_baseline


@dataclass(frozen=True)
class Column:
    """A metric as the paper prints it.

    Attributes:
        group: the upper head, which neighbouring columns may share.
        under: the lower head, or nothing; {dataset} stands for the run's name.
        percent: it is printed in per cent.
    """

    metric: str
    group: str
    under: str = ""
    percent: bool = True
    digits: int = 1


@dataclass(frozen=True)
class Spec:
    """A table of the paper.

    Attributes:
        stub: the heads above the methods' names; the lower one may be empty.
        left_out: methods that the paper does not compare in this table.
    """

    title: str
    caption: str
    stub: tuple[str, str]
    columns: tuple[Column, ...]
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Cell:
    """A method's mean of a metric with half of its 95% interval.

    Both are fractions; `text` is the cell as the paper prints it.
    """

    mean: float | None
    ci95: float | None
    n: int
    best: bool
    text: str


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with a run's numbers.

    No text in it is escaped; each is one printable line.

    Attributes:
        groups: the upper heads, and the number of columns each spans.
        unders: the lower heads, one per column; empty where the table has none.
        rows: a method's title and its cells; the controls are last.
        controls: number of the last rows that are controls, below a line.
    """

    title: str
    caption: str
    stub: tuple[str, str]
    groups: Sequence[tuple[str, int]]
    unders: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    notes: Sequence[str]
    controls: int = 0

    @property
    def first_control(self) -> int | None:
        """Index of the row below the line; None where there is no line."""
        return len(self.rows) - self.controls if 0 < self.controls < len(self.rows) else None

    @property
    def head_lines(self) -> list[list[str]]:
        """Lines of the head, one or two, with the stub and a text for every column."""
        upper = [self.stub[0], *(group for group, span in self.groups for _ in range(span))]
        return [upper, [self.stub[1], *self.unders]] if self.unders else [upper]

    @property
    def heads(self) -> list[str]:
        """Heads of the columns, each in one line."""
        return [" ".join(filter(None, texts)) for texts in zip(*self.head_lines, strict=True)][1:]


_RECOGNITION = (
    Column("average_drop_80", "Average Drop", "80%"),
    Column("average_drop_70", "Average Drop", "70%"),
    Column("increase_80", "Average Increase", "80%"),
    Column("increase_70", "Average Increase", "70%"),
)
_CURVES = (
    Column("deletion_auc", "Deletion Score", percent=False, digits=4),
    Column("insertion_auc", "Insertion Score", percent=False, digits=4),
)
_PROPORTION = (Column("proportion", "Proportion", "{dataset}", digits=2),)

PAPER = (
    Spec("Table 1", "Average drop (lower is better) and average increase (higher is better)", ("Evaluation", "Percentile"), _RECOGNITION),
    Spec(
        "Table 2",
        "Deletion (lower is better) and insertion (higher is better) scores",
        ("Evaluation", ""),
        _CURVES,
        frozenset({"gradient", "deeplift", "integrated_gradients", "rise"}),
    ),
    Spec("Table 3", "Proportion of each map's energy inside the ground truth", ("Evaluation", "Dataset"), _PROPORTION),
)

# Section 4.7 reads the rows of DM and HDM across the three tables.
ABLATION = Spec("Ablation", "DM alone and HDM, its hierarchy", ("Evaluation", ""), (*_RECOGNITION, *_CURVES, *_PROPORTION))


def paper_tables(table: pa.Table, name: str) -> list[PaperTable]:
    """Fill the paper's tables with the methods of a run, in the registry's order.

    The controls are last. A run of HDM and DM alone, or beside controls, gives the ablation of Section 4.7.

    Args:
        table: tables.parquet.
        name: the run's, which stands for the dataset in Table 3.
    """
    table = of_first_baseline(table)
    methods = {method for method in table["method"].to_pylist() if not is_control(method)}
    measured = set(table["metric"].to_pylist())
    dataset = "".join(letter if letter.isprintable() else " " for letter in name)
    specs = (ABLATION,) if methods == {"hdm", "dm"} else PAPER
    # Of a run that names its metrics, a table without any of them would be empty.
    shown = [spec for spec in specs if not measured or measured.intersection(column.metric for column in spec.columns)]
    return [_fill(spec, table, dataset) for spec in shown]


# Of a metric that the run does not name.
_NO_NUMBER: dict[str, Any] = {"mean": None, "ci95": None, "n": 0}


def _fill(spec: Spec, table: pa.Table, dataset: str) -> PaperTable:
    shown = table.filter(pc.invert(pc.is_in(table["method"], value_set=pa.array(sorted(spec.left_out), pa.string()))))
    values = {(row["method"], row["metric"]): row for row in shown.to_pylist()}
    methods = controls_last(method for method, _ in values)
    winners = best(shown) if len(methods) > 1 else set()
    cells = {method: [_cell(method, column, values, winners) for column in spec.columns] for method in methods}
    missing = [method_title(method) for method in METHODS.sort(table["method"].to_pylist()) if method in spec.left_out]
    rows_of = {method: row for (method, _), row in reversed(values.items())}
    first = {method: rows_of[method] for method in methods}
    counts = [
        f"{method_title(method)}: {row['n_flat']} flat, {row['n_failed']} failed"
        for method, row in first.items()
        if row["n_flat"] or row["n_failed"]
    ]
    notes = [f"Mean ± half of the 95% interval, {_images(cells)}", *counts, *_without_contrast(spec, first)]
    if missing:
        notes.append(f"Left out, as in the paper: {', '.join(missing)}")
    groups: dict[str, int] = {}
    for column in spec.columns:
        head = f"{column.group} {METRICS[column.metric].arrow}"
        groups[head] = groups.get(head, 0) + 1
    unders = [column.under.format(dataset=dataset) for column in spec.columns]
    rows = [(method_title(method), cells[method]) for method in methods]
    controls = sum(map(is_control, methods))
    return PaperTable(spec.title, spec.caption, spec.stub, list(groups.items()), unders if any(unders) else [], rows, notes, controls)


def _without_contrast(spec: Spec, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the notes about images whose class a baseline keeps.

    Args:
        rows: method -> a row of tables.parquet.
    """
    of_maps = [f"{method_title(method)} {count}" for method, row in rows.items() if (count := row["n_no_contrast"])]
    of_metrics = max((row["n_metrics_no_contrast"] or 0 for row in rows.values()), default=0)
    notes = [f"Images whose class the baseline of the map keeps: {', '.join(of_maps)}"] if of_maps else []
    if of_metrics and not all(METRICS[column.metric].map_only for column in spec.columns):
        notes.append(f"Images whose class the baseline of the metrics keeps: {of_metrics}")
    return notes


def _cell(method: str, column: Column, rows: Mapping[tuple[str, str], Mapping[str, Any]], winners: set[tuple[str, str]]) -> Cell:
    row = rows.get((method, column.metric), _NO_NUMBER)
    mean, ci95 = row["mean"], row["ci95"]
    if mean is None or math.isnan(mean):
        return Cell(None, None, row["n"], False, "-")
    factor, sign = (100, "%") if column.percent else (1, "")
    spread = "" if ci95 is None else f" ± {factor * ci95:.{column.digits}f}"
    text = f"{factor * mean:.{column.digits}f}{sign}{spread}"
    return Cell(mean, ci95, row["n"], (method, column.metric) in winners, text)


def _images(cells: dict[str, list[Cell]]) -> str:
    counts = sorted({cell.n for row in cells.values() for cell in row})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "") if counts else "n = 0"
