"""A run as an xarray dataset: maps, read lazily, joined with the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    variables = maps.assign(_columns(store.record_parts(), len(ids), methods, maps.sizes.get("rank", 1)))
    return RunDataset.of(variables.assign_coords(image=ids, method_id=methods, **image_coordinates, **pixels), store)


def _columns(
    parts: Iterable[pa.Table], images: int, methods: list[str], ranks: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray[Any, Any]]]:
    """Return the records' columns as arrays (image, method_id[, rank]).

    Args:
        parts: records of some shards each, read once: beside the arrays only one is held.
        ranks: classes per image.
    """
    names = [name for name in RECORDS.names if name not in _NOT_VARIABLES]
    is_text = {
        name: not (pa.types.is_floating(RECORDS.field(name).type) or pa.types.is_integer(RECORDS.field(name).type)) for name in names
    }
    shape = images, len(methods), ranks
    arrays = {name: np.full(shape, *((None, object) if is_text[name] else (np.nan, float))) for name in names}
    absent, texts = set(metrics_on_request()), dict[Any, Any]()
    for part in parts:
        index = part["row"].to_numpy(), pc.index_in(part["method"], pa.array(methods)).to_numpy(), part["rank"].to_numpy()
        for name in names:
            column = part[name]
            if column.null_count == len(column):
                continue
            absent.discard(name)
            # Equal texts are one object: a million images have as many equal names of a method's target.
            values = [texts.setdefault(text, text) for text in column.to_pylist()] if is_text[name] else column.to_numpy()
            arrays[name][index] = values
    dims = ("image", "method_id", "rank")
    return {name: (dims, values) if ranks > 1 else (dims[:2], values[..., 0]) for name, values in arrays.items() if name not in absent}
