"""Images without contrast in tables: counted by method and class, and never left out of a mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs import RunStore
from pipeline.tables import FORMATS, paper_tables
from pipeline.tables.aggregate import aggregate
from pipeline.tables.no_contrast import ClassCount, count_no_contrast
from tests.support.report_runs import Changes, stored_run

METHODS = ("hdm", "grad_cam")


def changes() -> Changes:
    """Five images: three healthy ones without contrast for the metrics, of two of which the baseline of HDM keeps the class; two ill."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for row in range(5):
        healthy = row < 3
        common = {
            "target_name": "healthy" if healthy else "ill",
            "metrics_baseline_probability": 0.74 if healthy else 0.26,
            "metrics_no_contrast": healthy,
        }
        found[row, "hdm"] = {**common, "baseline": "black", "baseline_probability": 0.7, "no_contrast": row < 2}
        found[row, "grad_cam"] = common
    return found


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return stored_run(tmp_path, images=5, changes=changes())


def test_images_are_counted_by_method_and_class(store: RunStore) -> None:
    assert count_no_contrast(store.records()) == [
        ClassCount("hdm", "healthy", 3, 2, 3),
        ClassCount("grad_cam", "healthy", 3, None, 3),
    ]


def test_the_table_counts_them_beside_the_flat_ones_and_keeps_their_numbers(store: RunStore) -> None:
    for row in aggregate(store).to_pylist():
        expected = (2, 3) if row["method"] == "hdm" else (None, 3)
        assert (row["n_no_contrast"], row["n_metrics_no_contrast"]) == expected
        assert row["n_flat"] == row["n_failed"] == 0
        if row["metric"] == "deletion_auc":
            assert row["n"] == 5


def test_the_papers_tables_have_notes(store: RunStore) -> None:
    recognition, curves, proportion = paper_tables(aggregate(store), "tiny")
    for table in (recognition, curves):
        assert "Images whose class the baseline of the map keeps: HDM 2" in table.notes
        assert "Images whose class the baseline of the metrics keeps: 3" in table.notes
    # Proportion compares a map with a region: the baseline of the metrics does not matter.
    assert [note for note in proportion.notes if "keeps" in note] == ["Images whose class the baseline of the map keeps: HDM 2"]
    assert "keeps: HDM 2" in FORMATS["latex"]([recognition])


def test_a_run_that_did_not_measure_it_has_no_notes(tmp_path: Path) -> None:
    store = stored_run(tmp_path)
    assert {(row["n_no_contrast"], row["n_metrics_no_contrast"]) for row in aggregate(store).to_pylist()} == {(None, None)}
    assert count_no_contrast(store.records()) == []
    assert not [note for table in paper_tables(aggregate(store), "tiny") for note in table.notes if "keeps" in note]


def test_the_command_prints_them(store: RunStore, here: Callable[..., Any]) -> None:
    text = here("tables", store.url).out
    assert "Without contrast" in text
    assert [line.split() for line in text.splitlines() if "healthy" in line] == [
        ["HDM", "healthy", "3", "2", "3"],
        ["Grad-CAM", "healthy", "3", "-", "3"],
    ]
    facts = json.loads(here("tables", store.url, "--json").out)
    assert facts["no_contrast"][0] == {
        "method": "hdm",
        "class_name": "healthy",
        "images": 3,
        "no_contrast": 2,
        "metrics_no_contrast": 3,
    }
    assert here("tables", store.url, "--format", "csv").out.startswith("table,method")


def test_the_command_says_nothing_where_all_is_well(tmp_path: Path, here: Callable[..., Any]) -> None:
    assert "ontrast" not in here("tables", stored_run(tmp_path).url).out
