"""Signed maps of the gallery, in a diverging colour map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from hdm_core import METHODS, method_title
from hdm_core.heatmap import diverging
from pipeline.report.gallery import WORKERS, GalleryEntry, Tile
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map, signed_name


def add_signed(store: RunStore, records: pa.Table, entries: Sequence[GalleryEntry]) -> list[GalleryEntry]:
    """Add the signed maps to the gallery's entries, and write their images.

    A method that is not installed here has none on the page, and neither has a map whose status is not ok.

    Args:
        records: of rank 0.
    """
    config = store.metadata()["config"]
    methods = [name for name in config["methods"] if config.get("signed") and name in METHODS and METHODS[name].signed]
    if not methods:
        return list(entries)
    shown = pa.array([entry.image["row"] for entry in entries], pa.int64())
    chosen = pc.and_(pc.is_in(records["row"], value_set=shown), pc.equal(records["status"], "ok"))
    ok = {(record["row"], record["method"]) for record in records.filter(chosen).select(["row", "method"]).to_pylist()}

    def draw(entry: GalleryEntry) -> GalleryEntry:
        return replace(entry, signed=[_draw(store, entry, name) for name in methods if (entry.image["row"], name) in ok])

    with ThreadPoolExecutor(WORKERS) as workers:
        return list(workers.map(draw, entries))


def _draw(store: RunStore, entry: GalleryEntry, method: str) -> Tile:
    row, title = entry.image["row"], method_title(method)
    values = read_map(store.storage.zarr("maps.zarr"), signed_name(method), row)
    path = f"images/{row:06d}-{signed_name(method)}.png"
    buffer = io.BytesIO()
    diverging(values).save(
        buffer, format="PNG"
    )  # JPEG keeps one colour for four pixels, and a gradient's sign changes from one to the next
    store.storage.write(f"report/{path}", buffer.getvalue())
    return Tile(title, f"Signed map of {title} of {entry.image['image_id']}", path)
