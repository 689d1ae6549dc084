"""Figure 7 of the paper: HDM's maps above the ground truth."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw

from pipeline.config.load import load_config
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.images import UnreadableError, read_mask
from pipeline.datasets.shapes import is_segmented
from pipeline.errors import InputError
from pipeline.report.crop import crop
from pipeline.report.gallery import GalleryEntry, Tile
from pipeline.report.grids import Grid, hdm_tile, select_entries
from pipeline.runs import RunStore


def draw_ground_truth(store: RunStore, entries: Sequence[GalleryEntry]) -> Grid | str:
    """Arrange photograph, HDM's heatmap and ground truth, one column per photograph.

    The ground truth is read from the dataset again and written to report/images/, white on black.

    Returns:
        The grid, or one sentence with the reason why there is none.
    """
    shown = select_entries([entry for entry in entries if _is_annotated(hdm_tile(entry))])
    if not shown:
        return "None of the images shown has both an HDM map and an annotated region."
    try:
        config = load_config(store.metadata()["config"])
        samples = list_samples(config.dataset, config.storage)
        truths = [_truth_tile(store, entry, samples, config.storage) for entry in shown]
    except (InputError, UnreadableError) as error:
        return f"The ground truth is not available any more: {error}"
    rows = (("Photograph", [entry.photograph for entry in shown]), ("HDM", [hdm_tile(entry) for entry in shown]), ("Ground truth", truths))
    return Grid([], rows)


def _is_annotated(tile: Tile | None) -> bool:
    return bool(tile and tile.path and tile.record and tile.record["region"] in {"segmentation", "bbox"})


def _truth_tile(store: RunStore, entry: GalleryEntry, samples: Sequence[Sample], storage: Mapping[str, Any]) -> Tile:
    image = entry.image
    row, name = image["row"], image["image_id"]
    if row >= len(samples) or samples[row].image_id != name:
        raise UnreadableError("the dataset has changed since the run")
    region = draw_region(samples[row], (image["width"], image["height"]), storage)
    path = f"images/{row:06d}-truth.png"
    buffer = io.BytesIO()
    crop(region, image["crop"], entry.size).convert("L").point(lambda grey: 255 * (grey >= 128)).save(buffer, format="PNG")
    store.storage.write(f"report/{path}", buffer.getvalue())
    return Tile("Ground truth", f"the annotated {_kind(samples[row])} of {name}", path)


def _kind(sample: Sample) -> str:
    if sample.masks is not None or (sample.shapes is not None and is_segmented(sample.shapes)):
        return "segmentation"
    return "box" if sample.shapes is None else "boxes"


def draw_region(sample: Sample, size: tuple[int, int], storage: Mapping[str, Any]) -> Image.Image:
    """Read or draw the ground truth at the photograph's size, white on black.

    Args:
        size: width and height of the photograph.

    Raises:
        UnreadableError: if a mask cannot be read or has another size.
    """
    if (mask := read_mask(sample, size, storage)) is not None:
        return mask.convert("RGB")
    region = Image.new("RGB", size)
    if sample.bbox is not None:
        ImageDraw.Draw(region).rectangle(sample.bbox, fill="white")
    return region
