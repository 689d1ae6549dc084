"""Command `hdm tables`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from pipeline.cli.console import out, print_json
from pipeline.cli.options import Json, Run


def tables(
    run: Run,
    against: Annotated[
        str | None, typer.Option(metavar="METHOD", help="print instead how every method differs from this one, with paired tests")
    ] = None,
    format_: Annotated[Literal["text", "markdown", "latex", "csv"], typer.Option("--format", help="the format of the tables")] = "text",
    as_json: Json = False,
) -> None:
    """Print the paper's tables for a run.

    These are Tables 1, 2 and 3, or the ablation table for a run of HDM and DM alone; the classes whose images have no contrast; and, of
    a run with several baselines, the metrics side by side.
    """
    from pipeline.runs import RunStore
    from pipeline.runs.records import top_rank
    from pipeline.tables import FORMATS, paper_tables, to_rich
    from pipeline.tables.aggregate import aggregate, is_unmeasured, number_columns, remarks
    from pipeline.tables.baselines import compare_baselines, layout_baselines
    from pipeline.tables.no_contrast import COLUMNS, count_no_contrast, layout_no_contrast
    from pipeline.tables.paired import compare_with
    from pipeline.tables.paired_formats import PAIRED_FORMATS, paired_rich
    from pipeline.tables.rank_text import ranks_in_words
    from pipeline.tables.ranks import rank_methods

    store = RunStore.open(run)
    table = aggregate(store)
    records = store.records(columns=list(dict.fromkeys([*number_columns(store), *COLUMNS])))
    without_contrast = count_no_contrast(records)
    by_baseline = compare_baselines(table)
    if as_json:
        counts = [asdict(count) for count in without_contrast]
        facts = {"run": run, "tables": table.to_pylist(), "no_contrast": counts, "baselines": [each.as_dict() for each in by_baseline]}
        print_json({**facts, **_statistics(top_rank(records), against)})
        return
    if is_unmeasured(table):
        out.print(*remarks(table), markup=False)
        return
    if against is not None:
        differences = compare_with(top_rank(records), against)
        if format_ != "text":
            sys.stdout.write(PAIRED_FORMATS[format_](differences))
        else:
            out.print(paired_rich(differences))
            out.print(ranks_in_words(*rank_methods(top_rank(records))))
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


def _statistics(records: Any, against: str | None) -> dict[str, Any]:
    """Return the differences and ranks of --json."""
    from pipeline.tables.paired import compare_with
    from pipeline.tables.ranks import rank_methods

    rankings, mean_ranks = rank_methods(records)
    return {
        "differences": [asdict(each) for each in compare_with(records, against)],
        "ranks": [asdict(each) for each in rankings],
        "mean_ranks": [asdict(each) for each in mean_ranks],
    }
