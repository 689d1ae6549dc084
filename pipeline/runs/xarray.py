"""A run as an xarray dataset: maps, read lazily, joined with the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xarray as xr

from hdm_core.metrics.registry import metrics_on_request
from pipeline.runs import RunStore
from pipeline.runs.dataset import RunDataset
from pipeline.runs.records import RECORDS

# Columns of the records that are coordinates of the dataset, or lists.
_LISTS = ("stage_weights", "evidence_sufficiency", "evidence_necessity")
_NOT_VARIABLES = ("run", "shard", "row", "image_id", "method", "rank", "label", *_LISTS)


def open_run(url: str, storage: Mapping[str, Any] | None = None) -> RunDataset:
    """Open a run as a dataset of maps and records.

    Variables are a map per method, (image, y, x) float16 in [0, 1], `hdm_stages` where HDM ran, `evidence` (image, piece, y, x) bool
    where the pieces of evidence were searched, `{method}_signed` in [-1, 1] where signed maps are stored, and the columns of the records,
    (image, method_id); if several classes per image were explained, all have an axis `rank`. Images are addressed by their image_id,
    and have the coordinates row, path, label, class_name and split; y and x are pixels of the network's input. Maps of shards that are
    not done yet are zeros, and their numbers NaN. `photograph(image_id)` returns a whole photograph, `on_photograph(image_id, method)` a
    map in its pixels, `overlay(image_id, method)` both in one; a notebook shows the first images.

    Args:
        url: the run's folder or URL, which holds run.json.
        storage: fsspec options of the storage, such as {"endpoint_url": "..."}.

    Raises:
        InputError: if there is no run.
        ImportError: if xarray is not installed; the extra `analysis` installs it.

    Example:
        >>> from pipeline import open_run
        >>> run = open_run("runs/demo")
        >>> image = run.image.values[0]
        >>> heatmap = run.hdm.sel(image=image)
        >>> heatmap.dims
        ('y', 'x')
        >>> scores = run.insertion_auc.mean("image")
        >>> scores.sel(method_id="hdm").dtype
        dtype('float64')
    """
    store = RunStore.open(url, dict(storage or {}))
    images = store.images()
    maps = xr.open_zarr(store.storage.zarr("maps.zarr"), consolidated=False, chunks=None)
    ids = images["image_id"].to_numpy()
    image_coordinates = {name: ("image", images[name].to_numpy()) for name in ("row", "path", "label", "class_name", "split")}
    pixels = {axis: np.arange(maps.sizes[axis]) for axis in ("y", "x")}
    methods = list(store.metadata()["identity"]["methods"])
    variables = maps.assign(_columns(store, len(ids), methods))
    return RunDataset.of(variables.assign_coords(image=ids, method_id=methods, **image_coordinates, **pixels), store)


def _columns(store: RunStore, images: int, methods: list[str]) -> dict[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]]:
    """Return the records' columns as arrays (image, method_id[, rank]).

    One column is read at a time, in the parts of the shards, and equal texts are one object: 3,000,000 whole records take a GiB.
    """
    done = store.done()
    keys = store.records(done, ["row", "method", "rank"])
    ranks = 1 + (pc.max(keys["rank"]).as_py() or 0)
    index = keys["row"].to_numpy(), pc.index_in(keys["method"], pa.array(methods)).to_numpy(), keys["rank"].to_numpy()
    on_request = set(metrics_on_request())
    arrays: dict[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]] = {}
    for name in (name for name in RECORDS.names if name not in _NOT_VARIABLES):
        column = store.records(done, [name])[name]
        if name in on_request and column.null_count == len(column):
            continue
        is_number = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
        values = np.full((images, len(methods), ranks), np.nan if is_number else None, float if is_number else object)
        values[index] = _texts(column) if pa.types.is_string(column.type) else column.to_numpy()
        arrays[name] = (("image", "method_id", "rank"), values) if ranks > 1 else (("image", "method_id"), values[..., 0])
    return arrays


def _texts(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Return texts as Python's, equal ones as one object; None for null."""
    encoded = column.combine_chunks().dictionary_encode()
    different = np.array([*encoded.dictionary.to_pylist(), None], object)
    chosen: np.ndarray[Any, Any] = different[pc.fill_null(encoded.indices, len(different) - 1).to_numpy()]
    return chosen
