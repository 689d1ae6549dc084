"""docs/analysis.ipynb runs, and `open_run` returns what the store holds; test_blocks.py runs the blocks of docs/analysis.md."""

from __future__ import annotations

from pathlib import Path

import nbformat
import numpy as np
import pyarrow.compute as pc
import pytest
import xarray as xr
from nbclient import NotebookClient

import pipeline
from pipeline.runs import RunStore
from tests.docs.material import make_run
from tests.support.paths import ROOT
from tests.support.plans import refused
from tests.support.s3_server import S3

DOCS = ROOT / "docs"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDM_RUN", make_run(str(tmp_path / "runs")).url)
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    notebook = nbformat.read(DOCS / "analysis.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # it is kept without anybody's results
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


def same_as_the_store(run: xr.Dataset, store: RunStore) -> None:
    records = store.records()
    for row in records.to_pylist():
        for name in ("insertion_auc", "probability", "target", "status", "region"):
            found = run[name].sel(image=row["image_id"], method_id=row["method"]).item()
            assert found == row[name], name
    images = store.images().to_pylist()
    assert run.image.values.tolist() == [image["image_id"] for image in images]
    assert run.label.values.tolist() == [image["label"] for image in images]
    assert run.hdm.dtype == np.float16


def test_a_run_opens_with_maps_and_records_joined(tmp_path: Path) -> None:
    store = make_run(str(tmp_path / "runs"), done=2)
    run = pipeline.open_run(store.url)
    same_as_the_store(run, store)
    assert run.hdm_stages.dims == ("image", "stage", "y", "x")
    assert np.isnan(run.insertion_auc.isel(image=4)).all()  # its shard is not done
    assert not isinstance(run.status.isel(image=4, method_id=0).item(), str)
    assert float(run.hdm.isel(image=4).max()) == 0
    assert run.grad_cam.sel(image="1.png", x=3).dims == ("y",)


def test_it_opens_from_s3(s3: S3) -> None:
    store = make_run(s3.url, s3.storage)
    run = pipeline.open_run(store.url, s3.storage)
    same_as_the_store(run, store)
    assert float(run.hdm.isel(image=0).astype("float32").mean()) > 0


def test_several_classes_have_an_axis(tmp_path: Path) -> None:
    store = make_run(str(tmp_path / "runs"))
    records = store.records()
    second = records.set_column(records.column_names.index("rank"), "rank", pc.add(records["rank"], 1))
    from pipeline.runs.xarray import _columns

    both = _columns([second], 5, ["hdm", "grad_cam"], ranks=2)
    assert both["insertion_auc"][0] == ("image", "method_id", "rank")
    assert np.isnan(both["insertion_auc"][1][..., 0]).all()
    assert not np.isnan(both["insertion_auc"][1][..., 1]).any()


def test_what_is_no_run_is_refused_with_one_line(tmp_path: Path) -> None:
    assert "no run of hdm" in refused(lambda: pipeline.open_run(str(tmp_path)))
    with pytest.raises(AttributeError):
        _ = pipeline.nothing
