"""A run in xarray: the maps, read when they are looked at, and the records beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr

from pipeline.runs import RunStore

_KEYS = ("run", "shard", "row", "image_id", "method", "rank", "label", "stage_weights")


def open_run(url: str, storage: Mapping[str, Any] | None = None) -> xr.Dataset:
    """A run as a dataset: `open_run("runs/demo").hdm.sel(image="cats/1.jpg")`.

    A map of every method, (image, y, x) float16 in [0, 1], also with an axis `rank` where several classes of an image were explained, and
    `hdm_stages`; of the records every column, (image, method_id). Images are addressed by their image_id, and have the coordinates row,
    path, label, class_name and split; y and x are pixels of the network's input. What is not done yet has zeros for a map and NaN.

    Args:
        url: the run's folder or URL, the one that holds run.json.
        storage: fsspec options of its place, such as {"endpoint_url": "..."}.

    Raises:
        InputError: if there is no run.
        ImportError: if xarray is not installed; it comes with the extra `analysis`.
    """
    store = RunStore.open(url, dict(storage or {}))
    images, records = store.images(), store.records()
    maps = xr.open_zarr(store.storage.zarr("maps.zarr"), consolidated=False, chunks=None)
    ids = images["image_id"].to_numpy()
    about = {name: ("image", images[name].to_numpy()) for name in ("row", "path", "label", "class_name", "split")}
    pixels = {axis: np.arange(maps.sizes[axis]) for axis in ("y", "x")}
    methods = list(store.metadata()["identity"]["methods"])
    run: xr.Dataset = maps.assign(_columns(records, len(ids), methods)).assign_coords(image=ids, method_id=methods, **about, **pixels)
    return run


def _columns(records: pa.Table, images: int, methods: list[str]) -> dict[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]]:
    """Every column of the records as an array (image, method_id), or (image, method_id, rank)."""
    ranks = 1 + max(records["rank"].to_pylist(), default=0)
    place = np.array([methods.index(method) for method in records["method"].to_pylist()], dtype=int)
    where = records["row"].to_numpy(), place, records["rank"].to_numpy()
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]] = {}
    for name in (name for name in records.column_names if name not in _KEYS):
        numbers = pa.types.is_floating(records[name].type) or pa.types.is_integer(records[name].type)
        values = np.full((images, len(methods), ranks), np.nan if numbers else None, float if numbers else object)
        values[where] = records[name].to_numpy()
        arrays[name] = (("image", "method_id", "rank"), values) if ranks > 1 else (("image", "method_id"), values[..., 0])
    return arrays
