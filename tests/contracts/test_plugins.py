"""Entries of an installed package are used like built-in ones; one that is broken is one line in the log and harms nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.support.plugin import install_plugin

MAKE_RUN = "import sys; from tests.support.plugin import make_run\n"
TABLES = """
import json, sys
from pipeline.report.summary import body, head
from pipeline.runs import RunStore
from pipeline.runs.records import top_rank
from pipeline.tables import FORMATS, paper_tables
from pipeline.tables.aggregate import aggregate, layout_table
store = RunStore.open(sys.argv[1])
table = aggregate(store)
columns, rows = layout_table(table)
page = head(table), body(table, top_rank(store.records()), store.metadata()["passes_per_image"])
print(json.dumps({
    "table": table.to_pylist(),
    "columns": columns,
    "methods": [row[0] for row in rows],
    "page": [column["title"] for column in page[0]],
    "definition": page[0][-1]["definition"],
    "page methods": [row["title"] for row in page[1]],
    "paper": [[title for title, _ in each.rows] for each in paper_tables(table, "birds")],
    "markdown": FORMATS["markdown"](paper_tables(table, "birds")),
}))
"""


pytestmark = pytest.mark.slow  # the plugin is installed for real, and every test is a process of its own


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install_plugin(tmp_path_factory.mktemp("plugin"))


def python(code: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)


def facts(code: str, environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    ended = python(code, environment, *arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


# Methods


def test_a_method_from_outside_is_listed_and_explains(environment: dict[str, str]) -> None:
    code = """
import json, torch
from hdm_core import METHODS, explain
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
found = explain(network, torch.rand(2, 3, 8, 8), "centre")
print(json.dumps({"methods": list(METHODS), "status": found.status, "passes": found.passes}))
"""
    found = facts(code, environment)
    assert found["methods"][0] == "hdm"
    assert found["methods"][-1] == "centre"
    assert found["status"] == ["ok", "ok"]


def test_a_broken_plugin_is_one_line_and_harms_nothing(environment: dict[str, str]) -> None:
    ended = python("from hdm_core import METHODS; print(len(METHODS))", environment)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert lines == ["plugin hdm_test_plugin.broken:METHOD of hdm.methods was skipped: ImportError: libsaliency.so.1 is not installed"]


def test_without_plugins_there_are_only_our_own() -> None:
    from hdm_core import METHODS, METRICS

    assert len(METHODS) == 27
    assert len(METRICS) == 26


def test_a_plugins_author_checks_its_entries_in_one_line_each(environment: dict[str, str]) -> None:
    code = """
from hdm_core.testing import check_method, check_metric
from hdm_test_plugin.methods import CENTRE
from hdm_test_plugin.metrics import PEAK_INSIDE
check_method(CENTRE, class_agnostic=True)
check_metric(PEAK_INSIDE)
print("kept")
check_method(CENTRE)
"""
    ended = python(code, environment)
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.stdout == "kept\n", ended.stderr
    assert last.startswith("AssertionError: centre breaks the promise 'another target gives another map': "), ended.stderr


# Metrics


def test_a_metric_from_outside_is_measured_stored_and_limited(environment: dict[str, str], tmp_path: Path) -> None:
    code = (
        MAKE_RUN
        + """
import json, torch
from hdm_core import METRICS, evaluate
from pipeline.drift import DriftLimits, compare
from pipeline.runs.records import RECORDS
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
maps = torch.zeros(2, 8, 8)
maps[:, 2, 3] = 1
regions = torch.zeros(2, 8, 8, dtype=torch.bool)
regions[0, 2, 3] = regions[1, 5, 5] = True
measured = evaluate(network, torch.rand(2, 3, 8, 8), maps, 0, regions)
drift = compare(make_run(sys.argv[1], "before"), make_run(sys.argv[1], "after"))
(change,) = (each for each in drift.statistics if (each.method, each.class_name, each.quantity) == ("centre", None, "peak_inside"))
print(json.dumps({
    "metrics": list(METRICS),
    "values": measured.values["peak_inside"].tolist(),
    "stored": "peak_inside" in RECORDS.names,
    "limit": DriftLimits.model_validate({"peak_inside": 0.1}).model_dump()["peak_inside"],
    "changed": [change.estimate.n, change.estimate.mean],
}))
"""
    )
    found = facts(code, environment, str(tmp_path))
    assert found["metrics"][-2:] == ["background_share", "peak_inside"]
    assert found["values"] == [1.0, 0.0]
    assert found["stored"]
    assert found["limit"] == 0.1
    assert found["changed"] == [5, 0.0]


def test_a_run_keeps_its_numbers_where_the_plugin_is_not_installed(environment: dict[str, str], tmp_path: Path) -> None:
    made = python(MAKE_RUN + "make_run(sys.argv[1], 'tiny')", environment, str(tmp_path))
    assert made.returncode == 0, made.stderr
    run = str(tmp_path / "tiny")
    installed = facts(TABLES, environment, run)
    foreign = facts(TABLES, dict(os.environ), run)
    assert foreign["table"] == installed["table"]
    assert installed["columns"][-4:] == ["peak ↑", "n", "flat", "failed"]
    assert foreign["columns"][-4:] == ["peak_inside", "n", "flat", "failed"]
    assert foreign["columns"][:-4] == installed["columns"][:-4]
    assert (installed["page"][-1], foreign["page"][-1]) == ("peak", "peak_inside")
    assert foreign["definition"] == "metric of a plugin that is not installed here"
    for name in ("methods", "page methods"):
        assert (installed[name], foreign[name]) == (["HDM", "Centre"], ["HDM", "centre"])
    assert foreign["paper"] == [["HDM", "centre"]] * 3
    for found in (installed, foreign):
        assert "peak" not in found["markdown"]
