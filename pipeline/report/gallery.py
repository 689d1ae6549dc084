"""The pictures of a report: which images are shown, and for each the photograph, every method's heatmap and HDM's stages."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from hdm_core import method_title
from hdm_core.heatmap import overlay
from pipeline.datasets.images import UnreadableError
from pipeline.report.crop import read_crop
from pipeline.runs import RunStore
from pipeline.runs.maps import STAGES, read_map

_WORKERS = 8  # images that are drawn at once
_EMPTY = (225, 228, 232)  # under a heatmap whose photograph is gone

NOTES = {
    "flat": "The map is the same everywhere: it says nothing.",
    "nan": "The method diverged on this image.",
}


@dataclass(frozen=True)
class Tile:
    """A picture of the gallery.

    Attributes:
        picture: its place below report/; None if there is none to show, and `note` says why.
        record: the row of the records that a method's tile shows.
    """

    title: str
    alt: str
    picture: str | None
    note: str | None = None
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Entry:
    """A row of the gallery: one image, as its row of images.parquet and as tiles of side x side pixels."""

    image: Mapping[str, Any]
    side: int
    photograph: Tile
    maps: Sequence[Tile]
    stages: Sequence[Tile]
    others: Sequence[Tile] = ()  # maps of the next likeliest classes


def draw_gallery(store: RunStore, records: pa.Table, images: pa.Table, limit: int) -> list[Entry]:
    """Writes the pictures of at most `limit` images to report/images/ and returns the gallery's rows, in row order.

    Args:
        records: of the committed shards.
        images: images.parquet, completed from the committed shards.
    """
    readable = records.filter(pc.not_equal(records["status"], "unreadable"))
    rows = spread(sorted(pc.unique(readable["row"]).to_pylist()), limit)
    shown = records.filter(pc.is_in(records["row"], value_set=pa.array(rows, pa.int64()))).to_pylist()
    by_row: dict[int, list[dict[str, Any]]] = {row: [] for row in rows}
    for record in shown:
        by_row[record["row"]].append(record)
    storage = store.metadata()["config"]["storage"]

    def draw(image: dict[str, Any]) -> Entry:
        return _draw(store, image, by_row[image["row"]], storage)

    with ThreadPoolExecutor(_WORKERS) as workers:
        return list(workers.map(draw, images.take(pa.array(rows, pa.int64())).to_pylist()))


def spread(rows: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the rows, at equal distances from the first on."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[i * len(rows) // limit] for i in range(limit)]


def _draw(store: RunStore, image: Mapping[str, Any], records: Sequence[Mapping[str, Any]], storage: Mapping[str, Any]) -> Entry:
    maps = store.storage.zarr("maps.zarr")
    row, name = image["row"], image["image_id"]
    values = [read_map(maps, record["method"], row, record["rank"]) for record in records]
    side = values[0].shape[-1]

    def put(kind: str, picture: Image.Image) -> str:
        place = f"images/{row:06d}-{kind}.jpg"
        store.storage.write(f"report/{place}", jpeg(picture))
        return place

    view, photograph = draw_photograph(image, side, storage, put)

    tiles: list[Tile] = []
    others: list[Tile] = []
    stages: list[Tile] = []
    for record, value in zip(records, values, strict=True):
        method, rank = record["method"], record["rank"]
        title = method_title(method) + (f", class {rank + 1}" if rank else "")
        kind = method + (f"-{rank}" if rank else "")
        shelf = others if rank else tiles
        if record["status"] != "ok":
            shelf.append(Tile(title, "", None, record["error"] or NOTES[record["status"]], record))
            continue
        alt = f"{title} heatmap of {name} for the class {record['target_name']}"
        shelf.append(Tile(title, alt, put(kind, overlay(view, value)), None, record))
        if method == "hdm" and not rank:
            for number, (mask, weight) in enumerate(zip(read_map(maps, STAGES, row), record["stage_weights"], strict=True), start=1):
                picture = put(f"stage-{number}", overlay(view, mask))
                stages.append(Tile(f"Stage {number}", f"HDM's mask of stage {number} for {name}", picture, f"weight {weight:.3f}"))
    return Entry(image, side, photograph, tiles, stages, others)


def draw_photograph(
    image: Mapping[str, Any], side: int, storage: Mapping[str, Any], put: Callable[[str, Image.Image], str]
) -> tuple[Image.Image, Tile]:
    """What the network saw of an image and its tile, or grey and a tile that says why.

    Args:
        image: a row of images.parquet.
        put: writes a picture of a kind and returns its place below report/.
    """
    try:
        view = read_crop(image, side, storage)
    except UnreadableError as error:
        note = f"The photograph is not available any more: {error}"
        return Image.new("RGB", (side, side), _EMPTY), Tile("Photograph", "", None, note)
    return view, Tile("Photograph", f"{image['image_id']} as the network saw it", put("photograph", view))


def jpeg(picture: Image.Image) -> bytes:
    """A picture as the page's pictures are stored."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return buffer.getvalue()
