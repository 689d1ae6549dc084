"""The pictures of the drift page: for each image the photograph, and every method's map before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from hdm_core import method_title
from hdm_core.heatmap import overlay
from pipeline.drift.compare import Drift
from pipeline.report.gallery import NOTES, Tile, draw_photograph, jpeg
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from pipeline.storage.objects import Storage

FOLDER = "drift"  # of the pictures, below report/

_WORKERS = 8  # images that are drawn at once


@dataclass(frozen=True)
class Change:
    """A method's maps of an image before and after, with their row of drift.parquet."""

    title: str
    before: Tile
    after: Tile
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Moved:
    """An image of the page.

    Attributes:
        row: of drift.parquet, of its first method.
        drift: the mean of its methods; None where none could be compared.
    """

    row: Mapping[str, Any]
    drift: float | None
    photograph: Tile
    changes: Sequence[Change]


def draw(drift: Drift, images: Sequence[int], place: Storage) -> list[Moved]:
    """Writes the pictures of some images below report/drift/ and returns the page's entries.

    Args:
        images: their places among those of drift.table.
        place: where report/ is.
    """
    after = drift.after.seen_images()
    storage = drift.after.metadata()["config"]["storage"]
    methods = len(drift.methods)

    def one(image: int) -> Moved:
        rows = drift.table.slice(image * methods, methods).to_pylist()
        (photographed,) = after.filter(pc.equal(after["row"], rows[0]["row_after"])).to_pylist()
        return _draw(drift, rows, photographed, storage, place)

    with ThreadPoolExecutor(_WORKERS) as workers:
        return list(workers.map(one, images))


def _draw(drift: Drift, rows: Sequence[Mapping[str, Any]], image: Mapping[str, Any], storage: Mapping[str, Any], place: Storage) -> Moved:
    first = rows[0]

    def put(kind: str, picture: Image.Image) -> str:
        name = f"{FOLDER}/{image['row']:06d}-{kind}.jpg"
        place.write(f"report/{name}", jpeg(picture))
        return name

    side = read_map(drift.after.storage.zarr("maps.zarr"), first["method"], first["row_after"]).shape[-1]
    view, photograph = draw_photograph(image, side, storage, put)

    def tile(row: Mapping[str, Any], when: str, store: RunStore) -> Tile:
        method, title = row["method"], when.capitalize()
        if row["status"] != "ok":
            note = NOTES.get(row["status"], "This image could not be explained.")
            return Tile(title, "", None, f"Not compared. In one of the runs: {note}")
        heat = overlay(view, read_map(store.storage.zarr("maps.zarr"), method, row[f"row_{when}"]))
        alt = f"{method_title(method)} heatmap of {row['image_id']} {when}, for the class {row[f'target_name_{when}']}"
        return Tile(title, alt, put(f"{method}-{when}", heat))

    changes = [Change(method_title(row["method"]), tile(row, "before", drift.before), tile(row, "after", drift.after), row) for row in rows]
    moved = pc.mean(pa.array([row["drift"] for row in rows], pa.float64())).as_py()
    return Moved(first, moved, photograph, changes)
