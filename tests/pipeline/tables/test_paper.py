"""The paper's tables: what is in them, and every way of writing them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from hdm_core import METHODS, METRICS
from pipeline.cli.main import main
from pipeline.config.load import load_config
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.tables import FORMATS, paper_tables, to_rich
from pipeline.tables.aggregate import TABLES
from pipeline.tables.formats import csv_text, latex_text
from pipeline.tables.paper import ABLATION, PAPER
from tests.support.plans import write_all

HOSTILE = "=x|&_%$#{}~^\\<b>*`[a](b)\n| new | row |\x1b[31m"


def table_of(means: dict[str, dict[str, float | None]], spread: float | None = 0.0125, n: int = 6) -> pa.Table:
    """tables.parquet of methods whose metrics have these means; a metric that is not given has none."""
    rows = [
        {
            "method": method,
            "metric": metric,
            "mean": mean,
            "std": None,
            "ci95": None if mean is None else spread,
            "n": 0 if mean is None else n,
        }
        | {"n_flat": int(method == "dm"), "n_failed": 0}
        for method, given in means.items()
        for metric, mean in ((metric, given.get(metric)) for metric in METRICS)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES)


def every(value: float | None) -> dict[str, float | None]:
    return dict.fromkeys(METRICS, value)


def texts(table: pa.Table) -> dict[str, list[tuple[str, list[tuple[str, bool]]]]]:
    """Title of every paper table -> its rows, each a method and (text, best) of every cell."""
    found = paper_tables(table, "birds")
    return {t.title: [(title, [(cell.text, cell.best) for cell in cells]) for title, cells in t.rows] for t in found}


TINY = table_of({"hdm": {"proportion": 0.5797, "deletion_auc": 0.25}, "dm": {"deletion_auc": 0.5}, "grad_cam": every(0.125)})


# What is in them


def test_the_tables_have_the_papers_columns_and_every_metric_once() -> None:
    assert [[(column.group, column.under) for column in spec.columns] for spec in PAPER] == [
        [("Average Drop", "80%"), ("Average Drop", "70%"), ("Average Increase", "80%"), ("Average Increase", "70%")],
        [("Deletion Score", ""), ("Insertion Score", "")],
        [("Proportion", "{dataset}")],
    ]
    assert [column.metric for spec in PAPER for column in spec.columns] == list(METRICS)
    assert [column.metric for column in ABLATION.columns] == list(METRICS)


def test_rows_are_those_of_the_paper_in_the_registrys_order() -> None:
    tables = paper_tables(table_of({method: every(0.5) for method in reversed(list(METHODS))}), "birds")
    all_titles = [method.title for method in METHODS.values()]
    titles = [[title for title, _ in table.rows] for table in tables]
    assert titles[0] == titles[2] == all_titles
    left_out = [METHODS[method].title for method in ("gradient", "deeplift", "integrated_gradients", "rise")]
    assert titles[1] == [title for title in all_titles if title not in left_out]
    assert tables[1].notes[-1] == f"Left out, as in the paper: {', '.join(left_out)}"
    assert not any("Left out" in note for table in (tables[0], tables[2]) for note in table.notes)


def test_digits_are_the_papers() -> None:
    rows = texts(table_of({"hdm": every(0.30149), "grad_cam": every(0.5)}))
    assert rows["Table 1"][0] == ("HDM", [("30.1% ± 1.2", True)] * 2 + [("30.1% ± 1.2", False)] * 2)
    assert rows["Table 2"][0] == ("HDM", [("0.3015 ± 0.0125", True), ("0.3015 ± 0.0125", False)])
    assert rows["Table 3"][0] == ("HDM", [("30.15% ± 1.25", False)])


def test_one_image_has_no_interval() -> None:
    assert texts(table_of({"hdm": every(0.5)}, spread=None))["Table 3"] == [("HDM", [("50.00%", False)])]


@pytest.mark.parametrize("metric", METRICS)
def test_the_best_is_decided_by_the_metrics_direction(metric: str) -> None:
    less, more = {**every(0.5), metric: 0.25}, {**every(0.5), metric: 0.75}
    for table in paper_tables(table_of({"hdm": less, "dm": more, "grad_cam": every(0.5)}), "birds"):
        for title, cells in table.rows:
            for column, cell in zip(next(spec for spec in PAPER if spec.title == table.title).columns, cells, strict=True):
                if column.metric == metric:
                    assert cell.best == (title == ("HDM" if METRICS[metric] else "DM"))
                else:
                    assert cell.best, "a tie is the best for all"


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_method_with_no_value_has_a_dash_and_is_never_the_best(nothing: float | None) -> None:
    rows = texts(table_of({"hdm": every(nothing), "grad_cam": every(0.5)}))
    for table in rows.values():
        assert table[0][1] == [("-", False)] * len(table[0][1])
        assert all(best for _, best in table[1][1])


def test_a_method_that_a_table_leaves_out_takes_nothing_from_the_others() -> None:
    rows = texts(table_of({"hdm": every(0.5), "grad_cam": every(0.5), "rise": {**every(0.9), "deletion_auc": 0.1}}))
    assert rows["Table 2"] == [(title, [("0.5000 ± 0.0125", True)] * 2) for title in ("HDM", "Grad-CAM")]


def test_one_method_competes_with_nobody() -> None:
    assert not any(best for table in texts(table_of({"hdm": every(0.5)})).values() for _, cells in table for _, best in cells)


def test_flat_images_and_their_number_are_told() -> None:
    assert paper_tables(TINY, "birds")[0].notes == ["Mean ± half of the 95% interval, n = 0 to 6", "DM: 1 flat, 0 failed"]


def test_hdm_and_dm_alone_are_the_ablation() -> None:
    (table,) = paper_tables(table_of({"hdm": every(0.25), "dm": every(0.5)}), "birds")
    assert table.title == "Ablation"
    assert [title for title, _ in table.rows] == ["HDM", "DM"]
    assert table.heads == [
        *("Average Drop ↓ 80%", "Average Drop ↓ 70%", "Average Increase ↑ 80%", "Average Increase ↑ 70%"),
        *("Deletion Score ↓", "Insertion Score ↑", "Proportion ↑ birds"),
    ]


def test_in_the_preset_ablation_only_the_hierarchy_differs() -> None:
    config = load_config("ablation")
    assert config.methods == ("hdm", "dm")
    hdm, dm = (config.settings[method].model_dump() for method in config.methods)
    assert {name: hdm[name] for name in dm} == dm
    assert hdm["stages"] > 1
    assert load_config("ablation", {"dataset.kind": "folder", "dataset.root": "birds"}).dataset.root == "birds"


def test_a_run_of_which_nothing_is_done_has_heads_only() -> None:
    tables = paper_tables(TABLES.empty_table(), "birds")
    assert [list(table.rows) for table in tables] == [[], [], []]
    for write in FORMATS.values():
        assert write(tables)


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
    assert len(rows) == 1 + 2 * len(METRICS)
    assert {row[1] for row in rows[1:]} == {"HDM", "'" + HOSTILE.partition("\n")[0]}


def test_a_terminal_gets_no_control_characters(hostile: pa.Table) -> None:
    console = Console(width=200, file=io.StringIO())
    console.print(to_rich(paper_tables(hostile, HOSTILE + "[bold]")))
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "[bold]" in text


# The command


@pytest.mark.parametrize("name", ["text", *FORMATS])
def test_the_command_writes_every_format(
    plan: Plan, store: RunStore, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.create(plan)
    write_all(store, plan)
    monkeypatch.setattr("sys.argv", ["hdm", "tables", store.url, *([] if name == "text" else ["--format", name])])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "Grad-CAM" in out
    assert Path(store.url, "tables.parquet").exists()
