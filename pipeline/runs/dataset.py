"""Dataset of `open_run`: an xarray dataset that knows the run's photographs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from hdm_core.heatmap import overlay
from hdm_core.notebook import pictures_html
from hdm_core.on_photograph import on_photograph
from pipeline.datasets.errors import UnreadableError
from pipeline.errors import HdmError, InputError, suggest
from pipeline.runs import RunStore
from pipeline.runs.images import with_facts
from pipeline.runs.maps import read_map
from pipeline.runs.photographs import read_photograph

_SHOWN = 4  # images that a notebook shows


class RunDataset(xr.Dataset):  # type: ignore[no-untyped-call]  # xarray's __init_subclass__
    """Maps and records of a run, an xarray dataset, with its photographs.

    Selections of it (`sel`, `isel`) keep the photographs. Its place is in `encoding`, which xarray writes into no file.
    """

    __slots__ = ()

    @classmethod
    def of(cls, data: xr.Dataset, store: RunStore) -> RunDataset:
        """Return a dataset of the run that a store holds."""
        run = cls(data.data_vars, data.coords, data.attrs)
        run.encoding = {"source": store.url, "storage": store.storage.options}
        return run

    def photograph(self, image_id: str) -> Image.Image:
        """Return a whole photograph, RGB and upright.

        Raises:
            InputError: if the run has no such image, or has not explained it yet.
            UnreadableError: if the photograph is gone, or has changed since the run.
        """
        store = self._store()
        return read_photograph(_image(store, image_id), store.metadata()["config"]["storage"])

    def on_photograph(self, image_id: str, method: str, rank: int = 0) -> NDArray[np.float32]:
        """Return a map in the pixels of its photograph.

        Returns:
            (height, width) float32 in [0, 1]; NaN outside the crop that the network saw.

        Raises:
            InputError: if the run has no such image or method, or has not explained the image.
        """
        store = self._store()
        image = _image(store, image_id)
        methods = list(store.metadata()["config"]["methods"])
        if method not in methods:
            raise InputError(f"{method}: the run has no such method{suggest(method, methods, list_all=True)}")
        values = read_map(store.storage.zarr("maps.zarr"), method, image["row"], rank)
        return on_photograph(values, image["crop"], (image["width"], image["height"]))

    def overlay(self, image_id: str, method: str, rank: int = 0) -> Image.Image:
        """Draw a map over its whole photograph.

        Raises:
            InputError, UnreadableError: as `photograph` and `on_photograph`.
        """
        return overlay(self.photograph(image_id), self.on_photograph(image_id, method, rank))

    def _repr_html_(self) -> str:
        """Return the first images with their maps, above xarray's own table."""
        table = str(super()._repr_html_())
        try:
            store = self._store()
            method = next(iter(store.metadata()["config"]["methods"]))
            ids = np.atleast_1d(self.coords["image"].values)[:_SHOWN]
            title = f"{store.url}: {method} on the first {len(ids)} of {self.sizes.get('image', 1)} images"
            return pictures_html(title, [(self.overlay(str(each), method), str(each)) for each in ids]) + table
        except (HdmError, UnreadableError, OSError, KeyError, ValueError):  # a table without pictures is better than none
            return table

    def _store(self) -> RunStore:
        try:
            return RunStore.open(self.encoding["source"], self.encoding["storage"])
        except KeyError:
            raise InputError("this dataset does not know its run any more: open it again with open_run") from None


def _image(store: RunStore, image_id: str) -> dict[str, Any]:
    """Return an image's row of images.parquet, with its facts."""
    images = store.images()
    ids = images["image_id"].to_pylist()
    if image_id not in ids:
        raise InputError(f"{image_id}: the run has no such image{suggest(image_id, ids[:10_000]) if len(ids) < 100 else ''}")
    row = ids.index(image_id)
    shard = row // store.metadata()["config"]["compute"]["shard_size"]
    found: list[dict[str, Any]] = (
        with_facts(images.take(pa.array([row])), store.image_facts([shard])).to_pylist() if store.is_done(shard) else []
    )
    if not found or found[0]["crop"] is None:
        raise InputError(f"{image_id}: the run has not explained this image")
    return found[0]
