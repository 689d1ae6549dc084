"""Maps in Zarr: they come back bit by bit, and lie as planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from tests.support.plans import configuration, files_below, plan_of, results, write_all

xarray = pytest.importorskip("xarray")


def expected(plan: Plan) -> dict[str, np.ndarray]:
    """Return the arrays of the whole run, as `results` generates them."""
    parts = [results(plan, shard)[0] for shard in plan.shards]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_maps_come_back_as_they_were_written(run: Path, plan: Plan) -> None:
    group = zarr.open_group(run / "maps.zarr", mode="r")
    for name, array in expected(plan).items():
        assert group[name].dtype == np.float16
        np.testing.assert_array_equal(np.asarray(group[name]), array)
        np.testing.assert_array_equal(read_map(RunStore.open(str(run)).storage.zarr("maps.zarr"), name, 4), array[4].astype(np.float32))


def test_every_float16_comes_back_bit_by_bit(plan: Plan, store: RunStore) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    values = np.resize(finite, (1024, 8, 8))
    plan = plan_of(configuration({"compute.shard_size": 1024, "methods": ["grad_cam"]}, output=plan.config.output, name="all"), 1024)
    store = RunStore.from_config(plan.config)
    store.create(plan)
    _, records, facts = results(plan, plan.shards[0])
    store.write_shard(plan.shards[0], {"grad_cam": values}, records, facts, plan.config)
    stored = np.asarray(zarr.open_group(f"{store.url}/maps.zarr", mode="r")["grad_cam"])
    np.testing.assert_array_equal(stored.view(np.uint16), values.view(np.uint16))


def test_maps_open_in_xarray_with_their_axes(run: Path, plan: Plan) -> None:
    with xarray.open_zarr(run / "maps.zarr", consolidated=False) as data:
        assert data["hdm"].dims == data["grad_cam"].dims == ("image", "y", "x")
        assert data["hdm_stages"].dims == ("image", "stage", "y", "x")
        assert dict(data.sizes) == {"image": 5, "y": 8, "x": 8, "stage": 2}
        for name, array in expected(plan).items():
            assert data[name].dtype == np.float16
            np.testing.assert_array_equal(data[name].values, array)


def test_a_chunk_is_an_image_and_an_object_is_a_shard(run: Path) -> None:
    group = zarr.open_group(run / "maps.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    assert (group["hdm"].chunks, group["hdm"].shards) == ((1, 8, 8), (2, 8, 8))
    assert (group["hdm_stages"].chunks, group["hdm_stages"].shards) == ((1, 2, 8, 8), (2, 2, 8, 8))


def test_a_shard_of_zeros_is_there(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    shard = plan.shards[0]
    arrays, records, facts = results(plan, shard)
    store.write_shard(shard, {name: np.zeros_like(array) for name, array in arrays.items()}, records, facts, plan.config)
    for name in ("hdm/c/0/0/0", "grad_cam/c/0/0/0", "hdm_stages/c/0/0/0/0"):
        assert (Path(store.url) / "maps.zarr" / name).stat().st_size > 0
    assert not (Path(store.url) / "maps.zarr/hdm/c/1/0/0").exists()


def test_the_same_shard_gives_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    contents = []
    for folder in ("a", "b"):
        again = replace(plan, config=plan.config.model_copy(update={"output": str(tmp_path / folder)}))
        store = RunStore.from_config(again.config)
        store.create(again)
        write_all(store, again)
        names = files_below(Path(store.url)) - {"run.json"}
        contents.append({name: (Path(store.url) / name).read_bytes() for name in names})
    assert contents[0] == contents[1]
