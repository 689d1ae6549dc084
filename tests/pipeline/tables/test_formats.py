"""The paper's tables as text, Markdown, LaTeX and CSV, also with hostile names."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pyarrow as pa
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from hdm_core import METHODS
from pipeline.tables import FORMATS, paper_tables, to_rich
from pipeline.tables.formats import csv_text, latex_text
from pipeline.tables.paper import ABLATION
from tests.support.paper_tables import HOSTILE, TINY, every, table_of

# How they are written


def test_as_text() -> None:
    console = Console(width=100, file=io.StringIO())
    console.print(to_rich(paper_tables(TINY, "birds")[1:]))
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "Table 2. Deletion (lower is better) and insertion (higher is better) scores",
        "Evaluation  Deletion Score ↓   Insertion Score ↑",
        "HDM         0.2500 ± 0.0125    -",
        "DM          0.5000 ± 0.0125    -",
        "Grad-CAM    0.1250 ± 0.0125 *  0.1250 ± 0.0125 *",
        "Mean ± half of the 95% interval, n = 0 to 6",
        "DM: 1 flat, 0 failed",
        "",
        "Table 3. Proportion of each map's energy inside the ground truth",
        "Evaluation  Proportion ↑",
        "Dataset     birds",
        "HDM         57.97% ± 1.25 *",
        "DM          -",
        "Grad-CAM    12.50% ± 1.25",
        "Mean ± half of the 95% interval, n = 0 to 6",
        "DM: 1 flat, 0 failed",
        "* the best; ↓ less is better, ↑ more is better",
    ]


def test_the_best_is_bold_on_a_terminal() -> None:
    console = Console(width=100, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(to_rich(paper_tables(TINY, "birds")[2:]))
    assert "\x1b[1m57.97% ± 1.25 *\x1b[0m" in console.file.getvalue()


def test_as_markdown() -> None:
    assert (
        FORMATS["markdown"](paper_tables(TINY, "birds")[1:])
        == """\
**Table 2.** Deletion (lower is better) and insertion (higher is better) scores

| Evaluation | Deletion Score ↓ | Insertion Score ↑ |
| --- | ---: | ---: |
| HDM | 0.2500 ± 0.0125 | - |
| DM | 0.5000 ± 0.0125 | - |
| Grad-CAM | **0.1250 ± 0.0125** | **0.1250 ± 0.0125** |

Mean ± half of the 95% interval, n = 0 to 6; DM: 1 flat, 0 failed

**Table 3.** Proportion of each map's energy inside the ground truth

| Evaluation | Proportion ↑ birds |
| --- | ---: |
| HDM | **57.97% ± 1.25** |
| DM | - |
| Grad-CAM | 12.50% ± 1.25 |

Mean ± half of the 95% interval, n = 0 to 6; DM: 1 flat, 0 failed
"""
    )


def test_as_latex() -> None:
    first, *_, third = paper_tables(table_of({"hdm": every(0.5797), "grad_cam": every(0.125)}), "birds_1")
    assert (
        FORMATS["latex"]([first, third])
        == r"""% In the preamble: \usepackage{booktabs}
\begin{table}
\centering
\caption{Average drop (lower is better) and average increase (higher is better). Mean $\pm$ half of the 95\% interval, n = 6}
\begin{tabular}{lrrrr}
\toprule
Evaluation & \multicolumn{2}{c}{Average Drop $\downarrow$} & \multicolumn{2}{c}{Average Increase $\uparrow$} \\
Percentile & 80\% & 70\% & 80\% & 70\% \\
\midrule
HDM & 58.0\% $\pm$ 1.2 & 58.0\% $\pm$ 1.2 & \textbf{58.0\% $\pm$ 1.2} & \textbf{58.0\% $\pm$ 1.2} \\
Grad-CAM & \textbf{12.5\% $\pm$ 1.2} & \textbf{12.5\% $\pm$ 1.2} & 12.5\% $\pm$ 1.2 & 12.5\% $\pm$ 1.2 \\
\bottomrule
\end{tabular}
\end{table}
\begin{table}
\centering
\caption{Proportion of each map's energy inside the ground truth. Mean $\pm$ half of the 95\% interval, n = 6}
\begin{tabular}{lr}
\toprule
Evaluation & Proportion $\uparrow$ \\
Dataset & birds\_1 \\
\midrule
HDM & \textbf{57.97\% $\pm$ 1.25} \\
Grad-CAM & 12.50\% $\pm$ 1.25 \\
\bottomrule
\end{tabular}
\end{table}
"""
    )


def test_as_csv() -> None:
    assert (
        FORMATS["csv"](paper_tables(TINY, "birds")[1:])
        == """\
table,method,column,mean,ci95,n,best
Table 2,HDM,Deletion Score ↓,0.25,0.0125,6,
Table 2,HDM,Insertion Score ↑,,,0,
Table 2,DM,Deletion Score ↓,0.5,0.0125,6,
Table 2,DM,Insertion Score ↑,,,0,
Table 2,Grad-CAM,Deletion Score ↓,0.125,0.0125,6,best
Table 2,Grad-CAM,Insertion Score ↑,0.125,0.0125,6,best
Table 3,HDM,Proportion ↑ birds,0.5797,0.0125,6,best
Table 3,DM,Proportion ↑ birds,,,0,
Table 3,Grad-CAM,Proportion ↑ birds,0.125,0.0125,6,
"""
    )


# What comes from outside


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """A run of which both the name and a method's title are hostile."""
    monkeypatch.setitem(METHODS, "grad_cam", replace(METHODS["grad_cam"], title=HOSTILE.partition("\n")[0]))
    return table_of({"hdm": every(0.5), "grad_cam": every(0.25)})


def test_markdown_shows_hostile_names_as_they_are(hostile: pa.Table) -> None:
    page = MarkdownIt("commonmark").enable("table").render(FORMATS["markdown"](paper_tables(hostile, HOSTILE)))
    assert page.count("<table>") == 3
    assert page.count("<tr>") == 9
    assert "<b>" not in page
    assert "<a" not in page
    assert "<td>=x|&amp;_%$#{}~^\\&lt;b&gt;*`[a](b)</td>" in page


def test_latex_sets_hostile_names_as_they_are(hostile: pa.Table) -> None:
    assert latex_text(r"\a{b}_%&#$~^<>|") == (
        r"\textbackslash{}a\{b\}\_\%\&\#\$\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\textbar{}"
    )
    text = FORMATS["latex"](paper_tables(hostile, HOSTILE))
    shown = HOSTILE.replace("\n", " ").replace("\x1b", " ")
    assert f"Dataset & {latex_text(shown)} \\\\\n" in text
    assert f"\n{latex_text(HOSTILE.partition(chr(10))[0])} & " in text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_spreadsheet_takes_a_name_for_a_formula(start: str) -> None:
    assert csv_text(f"{start}SUM(A1)") == f"'{start}SUM(A1)"
    assert csv_text("HDM") == "HDM"


def test_csv_stays_a_rectangle_with_hostile_names(hostile: pa.Table) -> None:
    rows = list(csv.reader(io.StringIO(FORMATS["csv"](paper_tables(hostile, HOSTILE)))))
    assert {len(row) for row in rows} == {7}
    assert len(rows) == 1 + 2 * len(ABLATION.columns)
    assert {row[1] for row in rows[1:]} == {"HDM", "'" + HOSTILE.partition("\n")[0]}


def test_a_terminal_gets_no_control_characters(hostile: pa.Table) -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(to_rich(paper_tables(hostile, HOSTILE + "[bold]")))
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "[bold]" in text
