"""Images of the drift page: photographs, and each method's map before and after."""

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
from pipeline.report.crop import fill_colour
from pipeline.report.gallery import NOTES, Tile, draw_photograph, encode_jpeg
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from pipeline.storage.objects import Storage

FOLDER = "drift"  # below report/

_WORKERS = 8  # images drawn in parallel


@dataclass(frozen=True)
class MapPair:
    """Maps of one image by one method, with their row of drift.parquet."""

    title: str
    before: Tile
    after: Tile
    row: Mapping[str, Any]


@dataclass(frozen=True)
class DriftEntry:
    """One image of the drift page.

    Attributes:
        row: row of drift.parquet of the image's first method.
        drift: mean over the methods; None if no map could be compared.
    """

    row: Mapping[str, Any]
    drift: float | None
    photograph: Tile
    maps: Sequence[MapPair]


def draw_entries(drift: Drift, images: Sequence[int], storage: Storage) -> list[DriftEntry]:
    """Write the images of some entries below report/drift/ and return the entries.

    Args:
        images: their indices among the images of drift.table.
        storage: root that holds report/.
    """
    after = drift.after.images_with_facts()
    source_options = drift.after.metadata()["config"]["storage"]
    methods = len(drift.methods)

    def draw(image: int) -> DriftEntry:
        rows = drift.table.slice(image * methods, methods).to_pylist()
        (image_row,) = after.filter(pc.equal(after["row"], rows[0]["row_after"])).to_pylist()
        return _draw_entry(drift, rows, image_row, source_options, storage)

    with ThreadPoolExecutor(_WORKERS) as workers:
        return list(workers.map(draw, images))


def _draw_entry(
    drift: Drift, rows: Sequence[Mapping[str, Any]], image: Mapping[str, Any], source_options: Mapping[str, Any], storage: Storage
) -> DriftEntry:
    first = rows[0]

    def save(kind: str, rendered: Image.Image) -> str:
        name = f"{FOLDER}/{image['row']:06d}-{kind}.jpg"
        storage.write(f"report/{name}", encode_jpeg(rendered))
        return name

    height, width = read_map(drift.after.storage.zarr("maps.zarr"), first["method"], first["row_after"]).shape[-2:]
    crop, photograph = draw_photograph(image, (height, width), source_options, save, fill_colour(drift.after.metadata()))

    def tile(row: Mapping[str, Any], when: str, store: RunStore) -> Tile:
        method, title = row["method"], when.capitalize()
        if row["status"] != "ok":
            note = NOTES.get(row["status"], "This image could not be explained.")
            return Tile(title, "", None, f"Not compared. In at least one of the runs: {note}")
        heatmap = overlay(crop, read_map(store.storage.zarr("maps.zarr"), method, row[f"row_{when}"]))
        alt = f"{method_title(method)} heatmap of {row['image_id']} {when}, for the class {row[f'target_name_{when}']}"
        return Tile(title, alt, save(f"{method}-{when}", heatmap))

    pairs = [MapPair(method_title(row["method"]), tile(row, "before", drift.before), tile(row, "after", drift.after), row) for row in rows]
    mean_drift = pc.mean(pa.array([row["drift"] for row in rows], pa.float64())).as_py()
    return DriftEntry(first, mean_drift, photograph, pairs)
