"""Pictures of the viewer, drawn on demand: photographs, maps, stages, curves."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hdm_core import METHODS
from hdm_core.evidence.draw import draw_borders, draw_pieces
from hdm_core.geometry import Size
from hdm_core.heatmap import colour, diverging, overlay
from pipeline.datasets.images import UnreadableError
from pipeline.report.crop import fill_colour, read_crop
from pipeline.report.gallery import encode_jpeg
from pipeline.runs import RunStore
from pipeline.runs.maps import EVIDENCE, STAGES, signed_name
from pipeline.runs.measured import measured_settings
from pipeline.view.cache import PictureCache
from pipeline.view.maps import Maps
from pipeline.view.removal import Curve, removal_image
from pipeline.view.truth import Truths

_EMPTY = (168, 174, 181)  # stands for a photograph that is not available
_FACTS = 64  # shards whose image facts are in memory
_CROPS = 96  # crops in memory, 150 KB each at 224 x 224

KINDS = (
    "photo.jpg",
    "overlay.jpg",
    "heat.png",
    "map.png",
    "signed.png",
    "truth.png",
    "stage.jpg",
    "piece.png",
    "pieces.png",
    "deletion.jpg",
    "insertion.jpg",
)


class Pictures:
    """Pictures of a run's images.

    Photographs are read through the dataset's root and only if they have the checksum that the run recorded.

    Args:
        info: run.json.
        paths: row -> image_id and path, from images.parquet.
    """

    def __init__(self, store: RunStore, info: Mapping[str, Any]) -> None:
        self.maps = Maps(store)
        self._store, self._info = store, info
        self._cache = PictureCache()
        self._truths = Truths(store, info)
        self._size = int(info["config"]["compute"]["shard_size"])
        self._root = local_root(info["config"]["dataset"])
        self._fill = fill_colour(info)
        self._metrics = measured_settings(store.storage, info)
        self._lock = threading.Lock()
        self.facts = lru_cache(_FACTS)(self._facts)
        self._crop = lru_cache(_CROPS)(self._read_crop)

    @property
    def size(self) -> Size:
        """Height and width of the maps."""
        height, width = self.maps.array(self._info["config"]["methods"][0]).shape[-2:]
        return int(height), int(width)

    def picture(self, image: Mapping[str, Any], kind: str, method: str, rank: int = 0, number: int = 0) -> bytes:
        """Return an encoded picture.

        Args:
            image: row, image_id and path.
            kind: one of KINDS.
            number: of the stage, the piece or the point of the curve, from 0.

        Raises:
            UnreadableError: for a photograph or ground truth that is not available, where it alone is shown.
            LookupError: if the run has no such map, stage or point.
        """
        key = (image["row"], kind, method, rank, number)
        return self._cache.get(key, lambda: self._draw(image, kind, method, rank, number))

    def problem(self, image: Mapping[str, Any]) -> str:
        """Return why a photograph is not available, or an empty text."""
        return self._cropped(image)[1]

    def _draw(self, image: Mapping[str, Any], kind: str, method: str, rank: int, number: int) -> bytes:
        row = image["row"]
        match kind:
            case "heat.png":
                return _png(colour(self.maps.read(method, row, rank)))
            case "map.png":
                return _png(Image.fromarray((self.maps.read(method, row, rank).clip(0, 1) * 255).round().astype(np.uint8)))
            case "signed.png":
                return _png(diverging(self.maps.read(signed_name(method), row, rank)))
            case "pieces.png":
                return _png(draw_borders(self.maps.read(EVIDENCE, row, rank) > 0))
            case "truth.png":
                return _png(self._truths.outline({**image, **self.fact(row)}, self.size))
        crop, problem = self._cropped(image)
        match kind:
            case "photo.jpg":
                return encode_jpeg(crop)
            case "overlay.jpg":
                return encode_jpeg(_noted(overlay(crop, self.maps.read(method, row, rank)), problem))
            case "stage.jpg":
                return encode_jpeg(overlay(crop, self.maps.read(STAGES, row, rank)[number]))
            case "piece.png":
                pieces = self.maps.read(EVIDENCE, row, rank) > 0
                if number >= len(pieces):
                    raise IndexError(number)
                return _png(draw_pieces(crop, pieces[number : number + 1], number))
        if problem or self._metrics is None or kind not in ("deletion.jpg", "insertion.jpg"):
            raise UnreadableError(problem or "the maps were not measured")
        points = 101 if self._metrics.protocol == "paper" else self.size[0] + 1
        if number >= points:
            raise IndexError(number)
        curve: Curve = "deletion" if kind == "deletion.jpg" else "insertion"
        values = self.maps.read(method, row, rank)
        return encode_jpeg(removal_image(crop, values, curve, number, points, self._metrics, self._info.get("interface") or {}))

    def fact(self, row: int) -> dict[str, Any]:
        """Return what reading an image added: sha256, width, height, crop."""
        with self._lock:
            facts: dict[int, dict[str, Any]] = self.facts(row // self._size)
        return facts[row]

    def _facts(self, shard: int) -> dict[int, dict[str, Any]]:
        return {fact["row"]: fact for fact in self._store.image_facts([shard]).to_pylist()}

    def _cropped(self, image: Mapping[str, Any]) -> tuple[Image.Image, str]:
        """Return the crop; a grey one, with the reason, if it is not available."""
        found: tuple[Image.Image, str] = self._crop(image["row"], image["image_id"], image["path"])
        return found

    def _read_crop(self, row: int, image_id: str, path: str) -> tuple[Image.Image, str]:
        try:
            fact = self.fact(row)
            if fact["crop"] is None:
                return self._placeholder("the run could not read it")
            image = {**fact, "image_id": image_id, "path": path}
            return read_crop(image, self.size, self._info["config"]["storage"], self._fill, self._root), ""
        except (UnreadableError, OSError, LookupError) as error:
            return self._placeholder(str(error))

    def _placeholder(self, reason: str) -> tuple[Image.Image, str]:
        return Image.new("RGB", self.size[::-1], _EMPTY), f"The photograph is not available: {reason}"


def local_root(dataset: Mapping[str, Any]) -> str | None:
    """Return the folder that a dataset's local files must not leave.

    It is the folder of a manifest, that of scikit-image's photographs for the demo, and else the root.
    """
    root = dataset.get("root")
    if dataset.get("kind") == "demo" or root is None:
        from importlib.util import find_spec

        spec = find_spec("skimage")
        return None if spec is None or not spec.submodule_search_locations else str(spec.submodule_search_locations[0])
    if "://" in root and not root.startswith("file://"):
        return None
    local = str(root).removeprefix("file://").rstrip("/")
    return local.rpartition("/")[0] or "." if dataset.get("kind") == "manifest" else local


def has_signed(info: Mapping[str, Any], method: str) -> bool:
    """Return whether a run stores the signed maps of a method."""
    return bool(info["config"].get("signed") and method in METHODS and METHODS[method].signed)


def _noted(picture: Image.Image, problem: str) -> Image.Image:
    """Write on a picture that the photograph below it is missing."""
    if problem:
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, picture.height - 18, picture.width, picture.height), fill="white")
        draw.text((5, picture.height - 15), "photograph not available", fill="black")
    return picture


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
