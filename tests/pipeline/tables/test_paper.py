"""The paper's tables: their contents and every format."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from hdm_core import METHODS, METRICS
from hdm_core.metrics.registry import chosen_metrics
from pipeline.cli.main import main
from pipeline.config.load import load_config
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.tables import FORMATS, paper_tables
from pipeline.tables.aggregate import TABLES
from pipeline.tables.paper import ABLATION, PAPER
from tests.support.paper_tables import TINY, every, table_of
from tests.support.plans import write_all


def texts(table: pa.Table) -> dict[str, list[tuple[str, list[tuple[str, bool]]]]]:
    """Title of every paper table -> its rows, each a method and (text, best) of every cell."""
    found = paper_tables(table, "birds")
    return {t.title: [(title, [(cell.text, cell.best) for cell in cells]) for title, cells in t.rows] for t in found}


# What is in them


def test_the_tables_have_the_papers_columns_and_its_seven_metrics_once() -> None:
    assert [[(column.group, column.under) for column in spec.columns] for spec in PAPER] == [
        [("Average Drop", "80%"), ("Average Drop", "70%"), ("Average Increase", "80%"), ("Average Increase", "70%")],
        [("Deletion Score", ""), ("Insertion Score", "")],
        [("Proportion", "{dataset}")],
    ]
    metrics = [column.metric for spec in PAPER for column in spec.columns]
    assert metrics == [column.metric for column in ABLATION.columns] == list(METRICS)[:7]


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


@pytest.mark.parametrize("metric", chosen_metrics(None))
def test_the_best_is_decided_by_the_metrics_direction(metric: str) -> None:
    less, more = {**every(0.5), metric: 0.25}, {**every(0.5), metric: 0.75}
    for table in paper_tables(table_of({"hdm": less, "dm": more, "grad_cam": every(0.5)}), "birds"):
        for title, cells in table.rows:
            for column, cell in zip(next(spec for spec in PAPER if spec.title == table.title).columns, cells, strict=True):
                if column.metric == metric:
                    assert cell.best == (title == ("HDM" if METRICS[metric].lower_is_better else "DM"))
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


def test_flat_images_and_their_number_are_noted() -> None:
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
