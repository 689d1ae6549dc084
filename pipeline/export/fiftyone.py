"""Export of a run as a FiftyOne dataset, in the format FiftyOneDataset."""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hdm_core.geometry import Geometry
from pipeline.datasets.decode import decode_photograph
from pipeline.datasets.formats import FORMATS
from pipeline.datasets.images import UnreadableError
from pipeline.export.fiftyone_schema import dataset_document
from pipeline.export.new_folder import new_folder
from pipeline.export.rows import ExportedImage, exported_images, metric_columns, read_photograph
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map

_SHOWN = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "AVIF": "avif"}  # formats that browsers show


@dataclass(frozen=True)
class FiftyOneSummary:
    """Counts of an export.

    Attributes:
        samples: images in the data set.
        heatmaps: maps.
        missing: ids of images that were left out, since their files are gone, have changed or cannot be read.
    """

    samples: int
    heatmaps: int
    missing: tuple[str, ...]


def export_fiftyone(store: RunStore, target: str) -> FiftyOneSummary:
    """Write a run as a folder in the format FiftyOneDataset.

    A sample has the photograph, the image's id, label and split, the explained class as a Classification, and by method a Heatmap, the
    status and the measured numbers. FiftyOne itself is not needed. The folder appears at once, when it is complete.

    Args:
        target: a folder of this machine that does not exist.

    Raises:
        InputError: if the target exists or no shard of the run is done.
        RunError: if the disk fills up.
    """
    metrics = metric_columns(store)
    methods: list[str] = list(store.metadata()["identity"]["methods"])
    samples: list[dict[str, Any]] = []
    missing: list[str] = []
    with new_folder(target) as folder:
        for name in ("data", *(f"fields/{method}" for method in methods)):
            (folder / name).mkdir(parents=True)
        for image in exported_images(store):
            media = _write_media(store, folder, image)
            if media is None:
                missing.append(image.facts["image_id"])
            else:
                samples.append(_sample(store, folder, image, media, metrics))
        names = sorted({sample["ground_truth"]["label"] for sample in samples if sample.get("ground_truth")})
        _write_json(folder / "metadata.json", dataset_document(store.metadata()["name"], methods, metrics, names))
        _write_json(folder / "samples.json", {"samples": samples})
    return FiftyOneSummary(len(samples), sum(method in sample for sample in samples for method in methods), tuple(missing))


def whole_photograph(values: NDArray[np.float32], image: dict[str, Any]) -> NDArray[np.uint8]:
    """Place a map of the network's crop in the frame of the whole photograph.

    The frame has the map's own pixels, and so another size than the photograph, over which FiftyOne stretches it; pixels outside the
    crop are 0. The crop's edges are rounded to pixels of the map.

    Args:
        values: (H, W) in [0, 1].
        image: row of images.parquet.

    Returns:
        The map times 255.
    """
    geometry = Geometry(tuple(image["crop"]), (values.shape[0], values.shape[1]))
    (left, top), (right, bottom) = (geometry.to_input(x, y) for x, y in ((0.0, 0.0), (float(image["width"]), float(image["height"]))))
    left, top, right, bottom = round(left), round(top), round(right), round(bottom)
    canvas = np.zeros((max(bottom - top, 1), max(right - left, 1)), dtype=np.uint8)
    rows, columns = (
        slice(max(0, start), max(0, min(side, end)))
        for start, end, side in ((top, bottom, values.shape[0]), (left, right, values.shape[1]))
    )
    part = np.round(np.clip(values[rows, columns], 0, 1) * 255).astype(np.uint8)
    canvas[rows.start - top : rows.start - top + part.shape[0], columns.start - left : columns.start - left + part.shape[1]] = part
    return canvas


def _write_media(store: RunStore, folder: Path, image: ExportedImage) -> str | None:
    """Write the photograph in a format of browsers; None if it cannot be read."""
    data = read_photograph(store, image)
    if data is None or image.facts["crop"] is None:
        return None
    try:
        suffix = _SHOWN.get(Image.open(io.BytesIO(data), formats=FORMATS).format or "")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        suffix = None
    if suffix is None:
        try:
            decoded = decode_photograph(data, None, None)[0]
        except UnreadableError:
            return None
        buffer, suffix = io.BytesIO(), "png"
        if not isinstance(decoded, Image.Image):
            return None
        decoded.save(buffer, format="PNG")
        data = buffer.getvalue()
    path = f"data/{image.facts['row']:08d}.{suffix}"
    (folder / path).write_bytes(data)
    return path


def _sample(store: RunStore, folder: Path, image: ExportedImage, media: str, metrics: list[str]) -> dict[str, Any]:
    facts, run = image.facts, store.metadata()["name"]
    first = next(iter(image.records.values()))
    sample: dict[str, Any] = {
        "_id": _object_id(run, facts["image_id"]),
        "filepath": media,
        "tags": [facts["split"]] if facts["split"] else [],
        "metadata": None,
        "_media_type": "image",
        "_rand": int(_digest(run, facts["image_id"])[:8], 16) / 2**32,
        "row": facts["row"],
        "image_id": facts["image_id"],
        "ground_truth": _classification(run, facts, "ground_truth", facts["class_name"] or facts["label"], None),
        "explained": _classification(run, facts, "explained", first["target_name"] or first["target"], _number(first["probability"])),
    }
    for method, record in image.records.items():
        sample[f"{method}_status"] = record["status"]
        sample |= {f"{method}_{metric}": _number(record[metric]) for metric in metrics}
        if method in image.mapped:
            path = f"fields/{method}/{facts['row']:08d}.png"
            values = read_map(store.storage.zarr("maps.zarr"), method, facts["row"])
            Image.fromarray(whole_photograph(values, facts)).save(folder / path)
            document = {"_id": _object_id(run, facts["image_id"], method), "_cls": "Heatmap", "tags": []}
            sample[method] = {**document, "map": None, "map_path": path, "range": [0.0, 255.0]}
    return sample


def _classification(run: str, facts: dict[str, Any], field: str, label: Any, confidence: float | None) -> dict[str, Any] | None:
    if label is None:
        return None
    document = {"_id": _object_id(run, facts["image_id"], field), "_cls": "Classification", "tags": []}
    return {**document, "label": str(label), "confidence": confidence, "logits": None}


def _number(value: float | None) -> float | None:
    """Return a finite number; None for NaN, which is no value in JSON."""
    return value if value is not None and math.isfinite(value) else None


def _object_id(*parts: str) -> dict[str, str]:
    """Return a MongoDB id that is the same in every export of a run."""
    return {"$oid": _digest(*parts)[:24]}


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
