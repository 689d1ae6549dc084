"""The paired comparison as rich text, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hdm_core import METRICS, is_control, method_title, metric_title
from pipeline.tables.aggregate import CONTROLS_LINE
from pipeline.tables.formats import csv_text, latex_text, markdown_text
from pipeline.tables.paired import STATISTICS, PairedDifference

HEADS = ("method", "n", "difference", "95% interval", "p", "p (Holm)", "better", "equal", "worse", "d_z", "n needed")

NOTES = tuple(
    " ".join(sentences)
    for sentences in (
        [
            "Difference: mean over the images of the method's value minus the reference's, with the 95% interval of the paired bootstrap.",
            "p: Wilcoxon's signed-rank test, two-sided, without images of equal values; Holm's correction is for all rows of all metrics.",
            "* p below 0.05 after the correction.",
        ],
        [
            "better, equal, worse: images on which the method is so. d_z: mean of the differences by their standard deviation.",
            "n needed: images with which a difference of the size seen has 80% power at 5%, ((1.960 + 0.842) / d_z)^2.",
            "Flat and failed maps are not compared.",
        ],
    )
)

Cells = Sequence[str]


def cells_of(each: PairedDifference) -> Cells:
    """Format a comparison as one text per head."""
    interval = "-" if each.low is None else f"{each.low:+.4f} to {each.high:+.4f}"
    needed = "-" if each.n_needed is None else f"{each.n_needed:,}"
    difference = "-" if each.difference is None else f"{each.difference:+.4f}"
    effect = "-" if each.effect_size is None else f"{each.effect_size:+.2f}"
    corrected = f"{p_text(each.p_holm)}{' *' if each.verdict else ''}"
    counts = (each.wins, each.ties, each.losses)
    return [method_title(each.method), str(each.n), difference, interval, p_text(each.p), corrected, *map(str, counts), effect, needed]


def p_text(p: float | None) -> str:
    """Format a p-value with three decimals."""
    return "-" if p is None else "<0.001" if p < 0.0005 else f"{p:.3f}"


def by_metric(found: Sequence[PairedDifference]) -> dict[str, list[PairedDifference]]:
    """Group comparisons by metric."""
    groups: dict[str, list[PairedDifference]] = {}
    for each in found:
        groups.setdefault(each.metric, []).append(each)
    return groups


def first_control(rows: Sequence[PairedDifference]) -> int | None:
    """Return the index of the row below the line; None where there is no line."""
    index = next((number for number, each in enumerate(rows) if is_control(each.method)), 0)
    return index or None


def title_of(metric: str, reference: str) -> str:
    """Return the title of a metric's rows."""
    return f"{metric_title(metric)} {METRICS[metric].arrow}, each method against {method_title(reference)}"


def paired_rich(found: Sequence[PairedDifference]) -> RenderableType:
    """Render for a terminal."""
    if not found:
        return Text("No differences: the comparison needs two methods that have a value for the same image.")
    shown: list[RenderableType] = []
    for metric, rows in by_metric(found).items():
        grid = Table(box=None, padding=(0, 2, 0, 0))
        for number, head in enumerate(HEADS):
            grid.add_column(Text(head), justify="right" if number else "left", no_wrap=True)
        for number, each in enumerate(rows):
            if number == first_control(rows):
                grid.add_row(CONTROLS_LINE)
            grid.add_row(*(Text(cell, "bold" if each.verdict else "") for cell in cells_of(each)))
        shown += [Text(title_of(metric, rows[0].reference), "bold"), grid, Text("")]
    return Group(*shown, *(Text(note, "dim") for note in NOTES))


def paired_markdown(found: Sequence[PairedDifference]) -> str:
    """Render as Markdown, one table per metric."""
    lines = []
    for metric, rows in by_metric(found).items():
        lines += [f"**{markdown_text(title_of(metric, rows[0].reference))}**", "", _markdown_row(HEADS)]
        lines.append(f"| --- |{' ---: |' * (len(HEADS) - 1)}")
        for number, each in enumerate(rows):
            if number == first_control(rows):
                lines.append(f"| *controls* |{' |' * (len(HEADS) - 1)}")
            lines.append(_markdown_row(cells_of(each)))
        lines.append("")
    return "\n".join([*lines, *(f"{markdown_text(note)}\n" for note in NOTES)])


def paired_latex(found: Sequence[PairedDifference]) -> str:
    """Render as LaTeX `table` environments with the rules of the package booktabs."""
    lines = [r"% In the preamble: \usepackage{booktabs}"]
    for metric, rows in by_metric(found).items():
        caption = latex_text(f"{title_of(metric, rows[0].reference)}. {' '.join(NOTES)}")
        lines += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(HEADS) - 1)}}}",
            r"\toprule",
        ]
        lines += [_latex_row(HEADS), r"\midrule"]
        for number, each in enumerate(rows):
            if number == first_control(rows):
                lines.append(r"\midrule")
            lines.append(_latex_row(cells_of(each)))
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def paired_csv(found: Sequence[PairedDifference]) -> str:
    """Render as CSV with the columns of statistics.parquet; numbers are not rounded."""
    out = io.StringIO()
    writer = csv.DictWriter(out, STATISTICS.names, lineterminator="\n")
    writer.writeheader()
    for each in found:
        writer.writerow({name: csv_text(value) if isinstance(value, str) else value for name, value in asdict(each).items()})
    return out.getvalue()


def _markdown_row(cells: Cells) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


def _latex_row(cells: Cells) -> str:
    return rf"{' & '.join(map(latex_text, cells))} \\"


PAIRED_FORMATS: dict[str, Callable[[Sequence[PairedDifference]], str]] = {
    "markdown": paired_markdown,
    "latex": paired_latex,
    "csv": paired_csv,
}
