"""The export for FiftyOne: its files against the run, and against FiftyOne's own reader where it is installed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError, RunError
from pipeline.export import fiftyone as exporter
from pipeline.export.fiftyone import export_fiftyone, whole_photograph
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from tests.support.plans import refused
from tests.support.report_runs import stored_run, unreadable

NAME = 'it\'s "<script>alert(1)</script>"\n' + "é" * 100


def pixels(file: Path) -> np.ndarray[Any, Any]:
    with Image.open(file) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """Five images: a strange name, an unreadable one, a NaN, a file that is gone, one whose shard is not done."""
    folder = tmp_path_factory.mktemp("run")
    changes: dict[tuple[int, str], dict[str, Any]] = {**unreadable(1), (2, "hdm"): {"status": "nan", "insertion_auc": float("nan")}}
    stored = stored_run(folder, 5, committed=4, changes=changes, names={0: NAME})
    (folder / "3.png").unlink()
    return stored


@pytest.fixture(scope="module")
def exported(store: RunStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "fiftyone"
    summary = export_fiftyone(store, str(folder))
    assert (summary.samples, summary.heatmaps, summary.missing) == (3, 3, ("bird-3",))
    return folder


def test_samples_have_the_runs_numbers_and_maps_and_every_field_is_declared(store: RunStore, exported: Path) -> None:
    samples = json.loads((exported / "samples.json").read_text())["samples"]
    document = json.loads((exported / "metadata.json").read_text())
    first, bad, nan = samples
    assert (first["image_id"], first["ground_truth"]["label"], first["explained"]["label"]) == (NAME, NAME, "Jenny wren")
    assert first["explained"]["confidence"] == 0.625
    assert (first["hdm_insertion_auc"], first["grad_cam_insertion_auc"]) == (0.25, 0.5)
    assert (bad["hdm_status"], bad["hdm_insertion_auc"]) == ("unreadable", None)
    assert "hdm" not in bad
    assert (nan["hdm_status"], nan["hdm_insertion_auc"]) == ("nan", None)
    assert "hdm" not in nan
    assert "grad_cam" in nan
    declared = {each["db_field"] for each in document["sample_fields"]}
    assert {name for sample in samples for name in sample if name not in {"_media_type", "_rand"}} <= declared
    assert document["media_type"] == "image"
    for sample in samples:
        assert len(sample["_id"]["$oid"]) == 24
        assert pixels(exported / sample["filepath"]).shape == (30, 48, 3)
        for method in ("hdm", "grad_cam"):
            if method in sample:
                row = sample["row"]
                image = store.images_with_facts().to_pylist()[row]
                expected = whole_photograph(read_map(store.storage.zarr("maps.zarr"), method, row), image)
                assert sample[method]["map_path"] == f"fields/{method}/{row:08d}.png"
                assert (pixels(exported / sample[method]["map_path"]) == expected).all()


def test_a_map_lies_where_the_network_saw_it() -> None:
    values = np.random.default_rng(0).random((4, 6), dtype=np.float32)
    for crop in ((10.0, 4.0, 28.0, 16.0), (-6.0, -3.0, 12.0, 9.0), (0.0, 0.0, 42.0, 24.0), (24.0, 15.0, 60.0, 39.0)):
        drawn = whole_photograph(values, {"crop": list(crop), "width": 42, "height": 24})
        scale_x, scale_y = 6 / (crop[2] - crop[0]), 4 / (crop[3] - crop[1])
        assert abs(drawn.shape[1] - 42 * scale_x) <= 1
        assert abs(drawn.shape[0] - 24 * scale_y) <= 1
        left, top = round(-crop[0] * scale_x), round(-crop[1] * scale_y)
        for i in range(drawn.shape[0]):
            for j in range(drawn.shape[1]):
                y, x = i + top, j + left
                expected = round(float(values[y, x]) * 255) if 0 <= y < 4 and 0 <= x < 6 else 0
                assert abs(int(drawn[i, j]) - expected) <= 1, crop


def test_nothing_is_left_of_an_export_that_fails(store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    assert refused(lambda: export_fiftyone(store, str(taken))) == f"{taken}: exists already; give a new folder"
    assert "not to a URL" in refused(lambda: export_fiftyone(store, "s3://bucket/x"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporter, "_write_json", full)
    with pytest.raises(RunError, match="No space left on device"):
        export_fiftyone(store, str(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(InputError, match="no shard of the run is done"):
        export_fiftyone(stored_run(tmp_path / "empty", committed=0), str(tmp_path / "new"))


@pytest.mark.server
def test_fiftyone_opens_it(exported: Path) -> None:
    fiftyone = pytest.importorskip("fiftyone")
    dataset = fiftyone.Dataset.from_dir(dataset_dir=str(exported), dataset_type=fiftyone.types.FiftyOneDataset)
    try:
        assert len(dataset) == 3
        assert Path(dataset.first()["hdm"].map_path).is_file()
    finally:
        dataset.delete()
