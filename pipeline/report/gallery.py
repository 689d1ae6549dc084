"""Gallery of the report: photographs, heatmaps of all methods and HDM's stages."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from hdm_core import method_title
from hdm_core.evidence.draw import draw_pieces
from hdm_core.geometry import Size
from hdm_core.heatmap import overlay
from pipeline.datasets.images import UnreadableError
from pipeline.report.contrast import ContrastRemarks
from pipeline.report.crop import BLACK, Colour, fill_colour, read_crop
from pipeline.runs import RunStore
from pipeline.runs.maps import EVIDENCE, STAGES, read_map
from pipeline.runs.measured import measured_settings

WORKERS = 8  # images drawn in parallel
_EMPTY = (225, 228, 232)  # background of a heatmap whose photograph is not available

NOTES = {
    "flat": "The map is constant: it carries no information.",
    "nan": "The method diverged on this image.",
}


@dataclass(frozen=True)
class Tile:
    """One image of the gallery with its caption.

    Attributes:
        path: path of the image below report/; None if there is none, and `note` gives the reason.
        record: row of the records that the tile of a method shows.
    """

    title: str
    alt: str
    path: str | None
    note: str | None = None
    record: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class GalleryEntry:
    """One image of the gallery.

    Attributes:
        image: row of images.parquet.
        size: height and width of the tiles.
        others: maps of the next most probable classes.
        remarks: sentences about baselines that keep the class.
        pieces: pieces of evidence.
        signed: signed maps.
    """

    image: Mapping[str, Any]
    size: Size
    photograph: Tile
    maps: Sequence[Tile]
    stages: Sequence[Tile]
    others: Sequence[Tile] = ()
    remarks: Sequence[str] = ()
    pieces: Sequence[Tile] = ()
    signed: Sequence[Tile] = ()


def draw_gallery(store: RunStore, records: pa.Table, images: pa.Table, limit: int) -> list[GalleryEntry]:
    """Write the gallery's images to report/images/ and return its entries, by row.

    Args:
        records: row and status of the records of the committed shards.
        images: images.parquet, completed from the committed shards.
        limit: maximum number of entries, spread evenly over the readable images.
    """
    readable = records["row"].filter(pc.not_equal(records["status"], "unreadable"))
    rows = evenly_spaced(np.unique(readable.to_numpy()).tolist(), limit)
    info = store.metadata()
    by_row: dict[int, list[dict[str, Any]]] = {row: [] for row in rows}
    shards = dict.fromkeys(row // info["config"]["compute"]["shard_size"] for row in rows)
    for part in store.record_parts(shards=shards):
        for record in part.filter(pc.is_in(part["row"], value_set=pa.array(rows, pa.int64()))).to_pylist():
            by_row[record["row"]].append(record)
    storage, fill = info["config"]["storage"], fill_colour(info)
    contrast = ContrastRemarks.of_run(info, measured_settings(store.storage, info))

    def draw(image: dict[str, Any]) -> GalleryEntry:
        entry = _draw_entry(store, image, by_row[image["row"]], storage, fill)
        return replace(entry, remarks=contrast.of_image(by_row[image["row"]]))

    with ThreadPoolExecutor(WORKERS) as workers:
        return list(workers.map(draw, images.take(pa.array(rows, pa.int64())).to_pylist()))


def evenly_spaced(rows: Sequence[int], limit: int) -> list[int]:
    """Select at most `limit` of the rows at equal distances, starting with the first."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[i * len(rows) // limit] for i in range(limit)]


def _draw_entry(
    store: RunStore, image: Mapping[str, Any], records: Sequence[Mapping[str, Any]], storage: Mapping[str, Any], fill: Colour
) -> GalleryEntry:
    maps = store.storage.zarr("maps.zarr")
    row, name = image["row"], image["image_id"]
    values = [read_map(maps, record["method"], row, record["rank"]) for record in records]
    height, width = values[0].shape[-2:]

    def save(kind: str, rendered: Image.Image) -> str:
        path = f"images/{row:06d}-{kind}.jpg"
        store.storage.write(f"report/{path}", encode_jpeg(rendered))
        return path

    crop, photograph = draw_photograph(image, (height, width), storage, save, fill)

    tiles: list[Tile] = []
    others: list[Tile] = []
    stages: list[Tile] = []
    pieces: list[Tile] = []
    for record, value in zip(records, values, strict=True):
        method, rank = record["method"], record["rank"]
        title = method_title(method) + (f", class {rank + 1}" if rank else "")
        kind = method + (f"-{rank}" if rank else "")
        group = others if rank else tiles
        if record["status"] != "ok":
            group.append(Tile(title, "", None, record["error"] or NOTES[record["status"]], record))
            continue
        alt = f"{title} heatmap of {name} for the class {record['target_name']}"
        group.append(Tile(title, alt, save(kind, overlay(crop, value)), None, record))
        if method == "hdm" and not rank:
            for number, (mask, weight) in enumerate(zip(read_map(maps, STAGES, row), record["stage_weights"], strict=True), start=1):
                path = save(f"stage-{number}", overlay(crop, mask))
                stages.append(Tile(f"Stage {number}", f"HDM's mask of stage {number} for {name}", path, f"weight {weight:.3f}"))
            pieces = _draw_pieces(read_map(maps, EVIDENCE, row) > 0, record, name, crop, save) if record["evidence_count"] else []
    return GalleryEntry(image, (height, width), photograph, tiles, stages, others, pieces=pieces)


def _draw_pieces(
    masks: NDArray[np.bool_], record: Mapping[str, Any], name: str, crop: Image.Image, save: Callable[[str, Image.Image], str]
) -> list[Tile]:
    """Draw each piece of evidence of an image, (pieces, H, W)."""
    tiles = []
    for number in range(record["evidence_count"]):
        path = save(f"piece-{number + 1}", draw_pieces(crop, masks[number : number + 1], number))
        keeps, loses = record["evidence_sufficiency"][number], record["evidence_necessity"][number]
        text = f"{masks[number].mean():.1%} of the pixels keep {keeps:.3f} alone; {loses:.3f} is lost without them"
        tiles.append(Tile(f"Piece {number + 1}", f"Piece of evidence {number + 1} of {name}: {text}", path, text))
    return tiles


def draw_photograph(
    image: Mapping[str, Any], size: Size, storage: Mapping[str, Any], save: Callable[[str, Image.Image], str], fill: Colour = BLACK
) -> tuple[Image.Image, Tile]:
    """Return the crop that the network saw, and its tile.

    A photograph that is not available is replaced by grey, and the tile has a note.

    Args:
        image: row of images.parquet.
        size: height and width of the crop.
        save: writes an image of the given kind and returns its path below report/.
        fill: of what lies beyond the photograph.
    """
    try:
        crop = read_crop(image, size, storage, fill)
    except UnreadableError as error:
        note = f"The photograph is not available any more: {error}"
        return Image.new("RGB", size[::-1], _EMPTY), Tile("Photograph", "", None, note)
    return crop, Tile("Photograph", f"{image['image_id']} as the network saw it", save("photograph", crop))


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode an image in the format of the page's images."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85, optimize=True)
    return buffer.getvalue()
