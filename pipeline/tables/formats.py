"""The paper's tables as rich text, Markdown, LaTeX and CSV.

Texts from outside, such as a run's name, are escaped as each format needs it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.tables.aggregate import CONTROLS_LINE, LEGEND
from pipeline.tables.paper import PaperTable

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "±": r"$\pm$",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def to_rich(tables: Sequence[PaperTable]) -> RenderableType:
    """Render for a terminal.

    The best is bold, with an asterisk for where bold is lost.
    """
    shown: list[RenderableType] = []
    for table in tables:
        grid = Table(box=None, padding=(0, 2, 0, 0))
        for lines in zip(*table.head_lines, strict=True):
            grid.add_column(Text("\n".join(lines)))
        for row, (title, cells) in enumerate(table.rows):
            if row == table.first_control:
                grid.add_row(CONTROLS_LINE)
            grid.add_row(Text(title), *(Text(f"{cell.text} *", "bold") if cell.best else Text(cell.text) for cell in cells))
        shown += [Text(f"{table.title}. {table.caption}", "bold"), grid, *(Text(note, "dim") for note in table.notes), Text("")]
    return Group(*shown[:-1], Text(LEGEND, "dim"))


def to_markdown(tables: Sequence[PaperTable]) -> str:
    """Render as Markdown, one section per table."""
    return _environment.get_template("tables.md.j2").render(tables=tables)


def to_latex(tables: Sequence[PaperTable]) -> str:
    """Render as LaTeX `table` environments with the rules of the package booktabs."""
    return _environment.get_template("tables.tex.j2").render(tables=tables)


def to_csv(tables: Sequence[PaperTable]) -> str:
    """Render as CSV with one row per table, method and column.

    Numbers are fractions and not rounded.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "method", "column", "mean", "ci95", "n", "best"])
    for table in tables:
        for title, cells in table.rows:
            for head, cell in zip(table.heads, cells, strict=True):
                names = map(csv_text, (table.title, title, head))
                writer.writerow([*names, cell.mean, cell.ci95, cell.n, "best" if cell.best else ""])
    return out.getvalue()


def markdown_text(text: str) -> str:
    """Escape a text so that Markdown, in a table or not, shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", text)


def latex_text(text: str) -> str:
    """Escape a text so that LaTeX sets it as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def csv_text(text: str) -> str:
    """Escape a text so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


FORMATS: dict[str, Callable[[Sequence[PaperTable]], str]] = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}

# LaTeX uses braces and per cent signs itself, so code in these templates is in other brackets.
_environment = Environment(  # noqa: S701 - nothing here is HTML
    loader=PackageLoader("pipeline", "tables"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    comment_start_string="<#",
    comment_end_string="#>",
)
_environment.filters |= {"md": markdown_text, "tex": latex_text}
