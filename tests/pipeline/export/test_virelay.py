"""The export for ViRelAy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.export.virelay import export_virelay
from pipeline.runs.maps import read_map
from tests.support.plans import refused
from tests.support.report_runs import SIDE, stored_run, unreadable


def test_without_h5py_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    message = refused(lambda: export_virelay(stored_run(tmp_path), str(tmp_path / "x")))
    assert message == "hdm export RUN virelay needs h5py: pip install 'hdm-pipeline[virelay]'"


def test_files_have_the_maps_of_one_method_beside_their_crops(tmp_path: Path) -> None:
    h5py: Any = pytest.importorskip("h5py")
    store = stored_run(tmp_path, 4, changes=unreadable(1), names={0: '<script>"\n'})
    (tmp_path / "2.png").unlink()
    folder = tmp_path / "virelay"
    assert export_virelay(store, str(folder), "grad_cam") == (2, ["bird-2"])
    with h5py.File(folder / "input.h5") as inputs, h5py.File(folder / "attribution.h5") as attributions:
        assert inputs["data"].shape == (2, 3, SIDE, SIDE)
        assert inputs["label"][:].tolist() == attributions["label"][:].tolist() == [0, 3]
        assert attributions["index"][:].tolist() == [0, 1]
        assert attributions["prediction"][:].tolist() == [[0, 0, 0, 0, 0, 0.625]] * 2
        for number, row in enumerate((0, 3)):
            expected = read_map(store.storage.zarr("maps.zarr"), "grad_cam", row)
            assert (np.asarray(attributions["attribution"][number, 0]) == expected).all()
    names = json.loads((folder / "label_map.json").read_text())
    assert names == [{"index": 0, "name": '<script>"\n'}, {"index": 3, "name": "wren"}, {"index": 5, "name": "Jenny wren"}]
    assert "exists already" in refused(lambda: export_virelay(store, str(folder)))
    assert "--method hdn: the run has no such method" in refused(lambda: export_virelay(store, str(tmp_path / "y"), "hdn"))
