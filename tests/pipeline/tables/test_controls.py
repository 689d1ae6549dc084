"""Comparison of methods with the controls, and the line above the controls in every table."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from hdm_core import METRICS
from hdm_core.metrics.registry import chosen_metrics
from pipeline.tables import FORMATS, paper_tables, to_rich
from pipeline.tables.aggregate import CONTROLS_LINE, layout_table
from pipeline.tables.controls import compare_with_controls, unbeaten_controls
from tests.support.browser import text_of
from tests.support.paper_tables import every, table_of
from tests.support.report_runs import page_of, stored_run

WITH_CONTROLS = table_of({name: every(0.5) for name in ("hdm", "grad_cam", "center", "random_map")})


def records_of(values: dict[str, list[float | None]], metric: str = "deletion_auc") -> pa.Table:
    """Records of methods with the values of one metric, image by image."""
    rows = [{"method": method, "row": row, metric: value} for method, given in values.items() for row, value in enumerate(given)]
    return pa.Table.from_pylist(rows, schema=pa.schema([("method", pa.string()), ("row", pa.int64()), (metric, pa.float32())]))


# The comparison


@pytest.mark.parametrize(("metric", "sign"), [("deletion_auc", -1), ("insertion_auc", 1)])
def test_the_interval_is_that_of_the_differences_image_by_image(metric: str, sign: int) -> None:
    ours, theirs = [0.25, 0.5, 0.125, 0.75], [0.5, 0.5, 0.75, 0.25]
    (found,) = compare_with_controls(records_of({"center": theirs, "gradient": ours}, metric))
    differences = [sign * (one - other) for one, other in zip(ours, theirs, strict=True)]
    assert (found.method, found.control, found.metric, found.n) == ("gradient", "center", metric, 4)
    assert found.advantage == pytest.approx(fmean(differences))
    assert found.ci95 == pytest.approx(1.96 * stdev(differences) / math.sqrt(4))


@pytest.mark.parametrize(
    ("ours", "beats"),
    [
        ([0.1, 0.2, 0.3], True),  # 0.4 less in every image
        ([0.5, 0.6, 0.7], False),  # equal: the interval is zero
        ([0.1, 0.5, 1.0], False),  # less on average, and the interval includes zero
        ([0.9, 1.0, 1.1], False),
    ],
)
def test_a_method_beats_a_control_only_with_the_whole_interval(ours: list[float | None], beats: bool) -> None:
    (found,) = compare_with_controls(records_of({"gradient": ours, "edges": [0.5, 0.6, 0.7]}))
    assert found.beats == beats


def test_images_without_both_values_do_not_count() -> None:
    (found,) = compare_with_controls(records_of({"gradient": [0.1, None, 0.3, math.nan, 0.2], "edges": [0.5, 0.6, None, 0.1, 0.4]}))
    assert found.n == 2


def test_fewer_than_two_images_prove_nothing() -> None:
    assert compare_with_controls(records_of({"gradient": [0.1, None], "edges": [0.5, 0.5]})) == []


def test_without_controls_or_methods_there_is_no_comparison() -> None:
    for names in (["gradient", "hdm"], ["center", "edges"], []):
        assert compare_with_controls(records_of({name: [0.1, 0.2] for name in names})) == []


def test_one_sentence_names_what_a_method_does_not_beat() -> None:
    good, bad = [0.1, 0.2], [0.5, 0.6]
    rows = {"hdm": good, "gradient": bad, "center": bad, "edges": [0.8, 0.9]}
    columns = {"method": [], "row": [], **{name: [] for name in ("deletion_auc", "average_drop_80")}}  # type: ignore[var-annotated]
    for method, values in rows.items():
        for row, value in enumerate(values):
            columns["method"].append(method)
            columns["row"].append(row)
            columns["deletion_auc"].append(value)
            columns["average_drop_80"].append(value if method != "edges" else 0.0)
    assert unbeaten_controls(compare_with_controls(pa.table(columns))) == [
        "HDM does not beat Edges in drop 80%.",
        "Gradient does not beat Centre in any of 2 metrics, nor Edges in drop 80%.",
    ]


# The report


def page_with(folder: Path, changes: dict[tuple[int, str], dict[str, Any]]) -> str:
    return text_of(page_of(stored_run(folder, methods=("hdm", "center"), changes=changes)))


def test_the_report_says_which_method_beats_no_control(tmp_path: Path) -> None:
    measured = {name: METRICS[name] for name in chosen_metrics(None)}
    worst = {name: 1.0 if metric.lower_is_better else 0.0 for name, metric in measured.items()}
    page = page_with(tmp_path, {(row, "hdm"): worst for row in range(3)})
    assert f"HDM does not beat Centre in any of {len(measured)} metrics." in page
    assert f"({len(measured)} comparisons, each of 3 images, not corrected for their number)" in page


def test_the_report_says_that_every_method_beats_every_control(tmp_path: Path) -> None:
    changes: dict[tuple[int, str], dict[str, Any]] = {}
    for method in ("hdm", "center"):
        values = {name: 0.0 if metric.lower_is_better == (method == "hdm") else 1.0 for name, metric in METRICS.items()}
        changes |= {(row, method): values for row in range(3)}
    page = page_with(tmp_path, changes)
    assert "Every method beats every control in every metric." in page
    assert "does not beat" not in page


def test_a_report_without_controls_does_not_mention_them(tmp_path: Path) -> None:
    page = page_of(stored_run(tmp_path))
    assert 'id="controls"' not in page
    assert 'class="line"' not in page


def test_the_reports_line_is_above_the_first_control(tmp_path: Path) -> None:
    page = page_of(stored_run(tmp_path, methods=("center", "random_map", "hdm")))
    order = [page.index(each) for each in ('<th scope="row">HDM', '<tr class="line"><th scope="row">Centre', '<th scope="row">Random map')]
    assert order == sorted(order)


# The tables


def test_controls_are_below_a_line_in_the_table_of_the_terminal() -> None:
    assert [row[0] for row in layout_table(WITH_CONTROLS)[1]] == ["HDM", "Grad-CAM", CONTROLS_LINE, "Centre", "Random map"]
    only = table_of({"center": every(0.5), "edges": every(0.5)})
    assert [row[0] for row in layout_table(only)[1]] == ["Centre", "Edges"]
    head, rows = layout_table(WITH_CONTROLS)
    assert {len(row) for row in rows} == {len(head)}


def test_controls_are_below_a_line_in_every_format_of_the_papers_tables() -> None:
    tables = paper_tables(WITH_CONTROLS, "birds")
    console = Console(width=200)
    with console.capture() as capture:
        console.print(to_rich(tables))
    texts = {"text": capture.get(), **{name: write(tables) for name, write in FORMATS.items()}}
    lines = {"text": CONTROLS_LINE, "markdown": "*controls*", "latex": "\\midrule\nCentre"}
    for name, text in texts.items():
        first, *_ = text.split("Table 2")
        assert first.index("HDM") < first.index("Grad-CAM") < first.index("Centre") < first.index("Random map")
        if name in lines:
            assert first.index("Grad-CAM") < first.index(lines[name]) < first.index("Random map")
    assert texts["markdown"].count("*controls*") == texts["text"].count(CONTROLS_LINE) == 3


def test_hdm_and_dm_beside_controls_are_the_ablation() -> None:
    (table,) = paper_tables(table_of({name: every(0.5) for name in ("hdm", "dm", "center")}), "birds")
    assert table.title == "Ablation"
    assert [title for title, _ in table.rows] == ["HDM", "DM", "Centre"]
    assert table.first_control == 2
