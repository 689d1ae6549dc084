"""Section of the report about which differences between methods are real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from hdm_core import METRICS, controls_last, is_control, method_title
from pipeline.report.gallery import Tile
from pipeline.report.rank_diagram import describe_ranks, draw_ranks
from pipeline.runs import RunStore
from pipeline.tables.paired import PairedDifference, read_statistics
from pipeline.tables.paired_formats import HEADS, NOTES, by_metric, cells_of, p_text, title_of
from pipeline.tables.rank_text import mean_ranks_in_words
from pipeline.tables.ranks import FEWEST_IMAGES, FEWEST_METHODS, rank_methods

_PATH = "figures/ranks.png"


@dataclass(frozen=True)
class Differences:
    """Contents of the section.

    Attributes:
        diagram: the critical-difference diagram, or a sentence with the reason why there is none.
        absent: a sentence with the reason why there is no table; empty if there is one, and the other fields are of the table.
        tested: number of comparisons with a p-value.
        details: a metric's title and its rows of texts, one per head.
        mean_ranks: the methods' mean ranks in words.
    """

    diagram: Tile | str
    mean_ranks: str = ""
    absent: str = ""
    reference: str = ""
    tested: int = 0
    columns: Sequence[str] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    details: Sequence[tuple[str, Sequence[Sequence[str]]]] = ()
    heads: Sequence[str] = field(default=HEADS)
    notes: Sequence[str] = field(default=NOTES)


def describe_differences(store: RunStore, records: pa.Table) -> Differences:
    """Return the section's contents, and write the diagram.

    Args:
        store: its statistics.parquet is of these records.
        records: one row per image and method, of rank 0.
    """
    rankings, mean_ranks = rank_methods(records)
    if rankings:
        store.storage.write(f"report/{_PATH}", draw_ranks(rankings))
    diagram: Tile | str = Tile("Ranks", describe_ranks(rankings), _PATH) if rankings else _no_ranks(records)
    in_words = mean_ranks_in_words(mean_ranks)
    found = [each for each in read_statistics(store) if each.n > 0]
    if not any(each.p is not None for each in found):
        return Differences(diagram, in_words, absent=_no_table(records))
    metrics = by_metric(found)
    methods = controls_last(each.method for each in found)
    cells = {(each.method, each.metric): each for each in found}
    first_control = next((method for method in methods if is_control(method) and not is_control(methods[0])), None)
    return Differences(
        diagram,
        in_words,
        reference=method_title(found[0].reference),
        tested=sum(each.p is not None for each in found),
        columns=[f"{METRICS[metric].title} {METRICS[metric].arrow}" for metric in metrics],
        rows=[
            {
                "title": method_title(method),
                "line": method == first_control,
                "cells": [_cell(cells.get((method, metric))) for metric in metrics],
            }
            for method in methods
        ],
        details=[(title_of(metric, rows[0].reference), [cells_of(each) for each in rows]) for metric, rows in metrics.items()],
    )


def _cell(each: PairedDifference | None) -> dict[str, str]:
    """Return a cell: its texts and its colour's class."""
    if each is None or each.difference is None:
        return {"text": "-", "interval": "", "verdict": "", "title": "no image has a value of both"}
    title = f"n = {each.n}, p = {p_text(each.p_holm)} after the correction; better {each.wins}, equal {each.ties}, worse {each.losses}"
    if each.n_needed is not None:
        title += f"; {each.n_needed:,} images needed for 80% power"
    interval = "" if each.low is None else f"{each.low:+.3f} to {each.high:+.3f}"
    return {"text": f"{each.difference:+.3f}", "interval": interval, "verdict": each.verdict, "title": title}


def _no_table(records: pa.Table) -> str:
    if len(records["method"].unique()) < 2:
        return "The run has one method: there is nothing to compare it with."
    return "No metric has two images with values of two methods: there is no interval, and no claim."


def _no_ranks(records: pa.Table) -> str:
    methods = [name for name in records["method"].unique().to_pylist() if not is_control(name)]
    if len(methods) < FEWEST_METHODS:
        return f"Ranks are compared from {FEWEST_METHODS} methods on, and this run has {len(methods)} beside controls."
    return f"Ranks are compared from {FEWEST_IMAGES} images on that have values of {FEWEST_METHODS} methods, and no metric has them."
