"""OME-Zarr's metadata on the maps of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from pipeline.runs.maps import array_shapes, create_arrays, encode_shard, read_map


def test_maps_have_the_metadata_of_ome_zarr_and_are_read_as_before(tmp_path: Path) -> None:
    shapes = array_shapes(("hdm", "grad_cam"), 4, (6, 8), stages=2, pieces=3, signed=("grad_cam",))
    store = LocalStore(tmp_path / "maps.zarr")
    create_arrays(store, shapes, 2)
    create_arrays(store, shapes, 2)  # a second worker
    group = zarr.open_group(store, mode="r", zarr_format=3)
    ome = group.attrs["ome"]
    assert isinstance(ome, dict)
    assert ome["version"] == "0.5"
    assert [image["name"] for image in ome["multiscales"]] == ["hdm", "grad_cam", "grad_cam_signed"]
    for image in ome["multiscales"]:
        # The rules of the format: 2 to 5 axes, two or three of space, which come last, at most one of neither time nor space; an array
        # has as many axes, of the same names; one scale per axis, above 0.
        names, kinds = [axis["name"] for axis in image["axes"]], [axis.get("type") for axis in image["axes"]]
        assert 2 <= len(names) == len(set(names)) <= 5
        assert kinds == [None, "space", "space"]
        (dataset,) = image["datasets"]
        array = group[dataset["path"]]
        assert isinstance(array, zarr.Array)
        assert list(array.metadata.dimension_names) == names
        (transformation,) = dataset["coordinateTransformations"]
        assert transformation == {"type": "scale", "scale": [1.0] * array.ndim}
    values = np.random.default_rng(0).random((2, 6, 8)).astype(np.float16)
    for name, data in encode_shard(1, 2, 2, {"hdm": values}).items():
        (tmp_path / "maps.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "maps.zarr" / name).write_bytes(data)
    assert (read_map(store, "hdm", 3) == values[1]).all()


def test_arrays_with_several_classes_per_image_have_none(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "maps.zarr")
    create_arrays(store, array_shapes(("hdm",), 4, (6, 8), None, ranks=2), 2)
    assert dict(zarr.open_group(store, mode="r", zarr_format=3).attrs) == {}


def test_ome_zarr_models_accept_it(tmp_path: Path) -> None:
    models = pytest.importorskip("ome_zarr_models")
    store = LocalStore(tmp_path / "maps.zarr")
    create_arrays(store, array_shapes(("hdm", "grad_cam"), 4, (6, 8), None), 2)
    assert models.open_ome_zarr(zarr.open_group(store, mode="r", zarr_format=3)) is not None
