"""open_run: the example of its docstring runs, and runs of other versions open."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.paths import ROOT
from tests.support.plans import configuration, plan_of, write_all

pytest.importorskip("xarray")

import pipeline
from pipeline.runs import RunStore


@pytest.fixture
def demo(tmp_path: Path) -> RunStore:
    """Run `runs/demo` below tmp_path."""
    plan = plan_of(configuration(name="demo", output=str(tmp_path / "runs")))
    store = RunStore.from_config(plan.config)
    store.create(plan)
    write_all(store, plan)
    return store


def test_the_example_of_the_docstring_runs(demo: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(pipeline.open_run, "open_run", globs={})
    assert len(example.examples) >= 4
    printed: list[str] = []
    assert doctest.DocTestRunner().run(example, out=printed.append).failed == 0, "".join(printed)


def test_a_run_without_a_metric_opens_with_nan(demo: RunStore) -> None:
    for path in (Path(demo.url) / "records").iterdir():
        pq.write_table(pq.read_table(path).drop_columns("insertion_auc"), path)
    run = pipeline.open_run(demo.url)
    assert np.isnan(run.insertion_auc).all()
    assert not np.isnan(run.deletion_auc).any()
    assert "srg" not in run, "a metric on request that was not measured"


def test_the_module_does_not_shadow_xarray() -> None:
    """The module has the library's name; `import xarray` still imports the library."""
    code = "import pipeline.runs.xarray, xarray; assert xarray.Dataset and 'pipeline' not in xarray.__file__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
