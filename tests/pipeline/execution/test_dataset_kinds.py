"""The same photographs, published in four forms, have the same maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

import pipeline
from pipeline.runs import RunStore
from tests.pipeline.datasets.test_contained import write_tar
from tests.support.plans import configuration, save_picture

NAMES = ("a", "b")


def maps_of(dataset: dict[str, Any], output: Path) -> np.ndarray[Any, Any]:
    """Run one method on a dataset, check that every image has its map, and return the maps."""
    config = configuration(
        dataset=dataset, methods=["grad_cam"], metrics={"names": ["pointing_game"]}, compute={"executor": "local"}, output=str(output)
    )
    pipeline.run(config)
    store = RunStore.from_config(config)
    records = store.records()
    assert records["status"].to_pylist() == ["ok"] * len(NAMES)
    assert store.images()["class_name"].to_pylist() == ["ant", "bee"]
    return zarr.open_group(store.storage.zarr("maps.zarr"), mode="r")["grad_cam"][:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (name, class_name) in enumerate(zip(NAMES, ("ant", "bee"), strict=True)):
        save_picture(tmp_path / "images" / class_name / f"{name}.png", seed=number)
    return tmp_path


def test_a_run_reads_coco_tars_and_parquet_as_it_reads_a_folder(folder: Path) -> None:
    images = folder / "images"
    data = {path: (images / path).read_bytes() for path in ("ant/a.png", "bee/b.png")}
    box = {"bbox": [2, 2, 9, 9], "segmentation": [[2, 2, 11, 2, 11, 11, 2, 11]], "area": 81, "iscrowd": 0}
    coco = {
        "images": [{"id": n, "file_name": name, "width": 24, "height": 20} for n, name in enumerate(data)],
        "annotations": [{"id": n, "image_id": n, "category_id": n, **box} for n in range(len(NAMES))],
        "categories": [{"id": 0, "name": "ant"}, {"id": 1, "name": "bee"}],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    members = {}
    for name, (path, content) in zip(NAMES, data.items(), strict=True):
        members |= {f"{name}.png": content, f"{name}.json": json.dumps({"class_name": path.partition("/")[0]}).encode()}
    write_tar(folder / "tars" / "0.tar", members)
    (folder / "parquet").mkdir()
    cells = pa.array([{"bytes": content, "path": path} for path, content in data.items()])
    pq.write_table(pa.table({"image": cells, "label": ["ant", "bee"]}), folder / "parquet" / "train.parquet")

    expected = maps_of({"kind": "folder", "root": str(images)}, folder / "out")
    assert expected.astype(np.float32).std() > 0
    datasets = {
        "coco": {"root": str(images), "annotations": str(folder / "coco.json")},
        "webdataset": {"root": str(folder / "tars")},
        "huggingface": {"root": str(folder / "parquet")},
    }
    for kind, keys in datasets.items():
        np.testing.assert_array_equal(maps_of({"kind": kind, **keys}, folder / f"out-{kind}"), expected, err_msg=kind)
    hits = RunStore.open(str(folder / "out-coco" / "tiny")).records()["pointing_game"].to_pylist()
    assert set(hits) <= {0.0, 1.0}, "COCO's outlines are regions"
