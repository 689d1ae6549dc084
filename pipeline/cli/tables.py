"""Command `hdm tables`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from pipeline.cli.console import out, print_json
from pipeline.cli.options import Json, Run


def tables(
    run: Run,
    format_: Annotated[Literal["text", "markdown", "latex", "csv"], typer.Option("--format", help="the format of the tables")] = "text",
    as_json: Json = False,
) -> None:
    """Print the paper's tables for a run.

    These are Tables 1, 2 and 3, or the ablation table for a run of HDM and DM alone; the classes whose images have no contrast; and, of
    a run with several baselines, the metrics side by side.
    """
    from pipeline.runs import RunStore
    from pipeline.tables import FORMATS, paper_tables, to_rich
    from pipeline.tables.aggregate import aggregate, is_unmeasured, remarks
    from pipeline.tables.baselines import compare_baselines, layout_baselines
    from pipeline.tables.no_contrast import count_no_contrast, layout_no_contrast

    store = RunStore.open(run)
    table = aggregate(store)
    without_contrast = count_no_contrast(store.records())
    by_baseline = compare_baselines(table)
    if as_json:
        counts = [asdict(count) for count in without_contrast]
        print_json({"run": run, "tables": table.to_pylist(), "no_contrast": counts, "baselines": [each.as_dict() for each in by_baseline]})
        return
    if is_unmeasured(table):
        out.print(*remarks(table), markup=False)
        return
    paper = paper_tables(table, store.metadata()["name"])
    if format_ != "text":
        sys.stdout.write(FORMATS[format_](paper))
        return
    out.print(to_rich(paper))
    for remark in remarks(table):
        out.print(remark, markup=False)
    if without_contrast:
        out.print(layout_no_contrast(without_contrast))
    if by_baseline:
        out.print(layout_baselines(by_baseline))
