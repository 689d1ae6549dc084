"""Files of an export: overlays, maps in the photograph's pixels, contours."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hdm_core.contours import contours, polygon_area
from hdm_core.heatmap import layer, overlay
from hdm_core.on_photograph import on_photograph, scaled
from pipeline.export.settings import ExportSettings

Map = NDArray[np.float32]


def draw(
    values: Map, photograph: Image.Image | None, record: Mapping[str, Any], image: Mapping[str, Any], settings: ExportSettings
) -> bytes:
    """Return the bytes of one map's file.

    Args:
        values: (h, w), the map of the network's input.
        photograph: of the exported size; None where the settings need none.
        record: row of the records.
        image: row of images.parquet with its facts.
    """
    size, box = scaled((image["width"], image["height"]), image["crop"], settings.size)
    if settings.kind == "maps" and settings.format == "geojson":
        return geojson(values, box, size, record, settings.levels)
    full = on_photograph(values, box, size)
    if settings.kind == "overlays":
        return encode(layer(full) if photograph is None else overlay(photograph, full), "PNG")
    return png16(full) if settings.format == "png" else tiff(full)


def png16(full: Map) -> bytes:
    """Encode a map (H, W) in [0, 1] as a grey PNG with 16 bits: round(65535 map).

    NaN, outside the crop, becomes 0; the manifest has the crop.
    """
    levels = np.rint(np.nan_to_num(full, nan=0.0).clip(0, 1).astype(np.float64) * 65535).astype(np.uint16)
    return encode(Image.fromarray(levels), "PNG")


def tiff(full: Map) -> bytes:
    """Encode a map (H, W) as a TIFF of 32-bit floats, compressed without loss.

    NaN stays NaN.
    """
    return encode(Image.fromarray(np.ascontiguousarray(full, np.float32)), "TIFF", compression="tiff_adobe_deflate")


def geojson(
    values: Map, box: tuple[float, float, float, float], size: tuple[int, int], record: Mapping[str, Any], levels: tuple[float, ...]
) -> bytes:
    """Encode a map's contours as a FeatureCollection, a polygon per feature.

    Args:
        values: (h, w).
        box: (left, top, right, bottom) in pixels of the picture.
        size: its width and height.
        record: row of the records.
        levels: thresholds.
    """
    named = {"image_id": record["image_id"], "method": record["method"], "class": record["target_name"]}
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": polygon},
            "properties": {**named, "name": f"{record['method']} {level:g}", "level": level, "area": round(polygon_area(polygon), 2)},
        }
        for level in levels
        for polygon in contours(values, box, size, level)
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False).encode()


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """Encode an image, without EXIF: its orientation is applied already."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()
