"""Classes of a run: mean maps, best and worst maps, and maps averaged by score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from hdm_core import METRICS, is_control, method_title
from hdm_core.geometry import Size
from hdm_core.heatmap import colour, overlay
from pipeline.datasets.images import UnreadableError
from pipeline.report.crop import fill_colour, read_crop
from pipeline.report.gallery import WORKERS, Tile, encode_jpeg, evenly_spaced
from pipeline.runs import RunStore
from pipeline.runs.maps import map_at, open_array

FOLDER = "classes"  # below report/
MAX_CLASSES = 50

_AVERAGED = 16  # photographs and maps of a class that are averaged: 800 of 50 classes
_BINS = 5
_PER_BIN = 64  # maps that are averaged
_GREY = (225, 228, 232)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ClassEntry:
    """One explained class.

    Attributes:
        images: whose maps have the status ok.
        without: images of the class without a usable map: flat, nan.
        probability: mean of the class's probability.
        score: mean of the score; None if no map was measured.
        mean: the mean map over the mean photograph.
        best: the map with the best score; None without scores.
        worst: the one with the worst.
    """

    name: str
    images: int
    without: int
    probability: float
    score: float | None
    mean: Tile
    best: Tile | None
    worst: Tile | None


@dataclass(frozen=True)
class ClassOverview:
    """Section of the page about classes and scores.

    Attributes:
        method: title of the method whose maps are shown.
        score: title of the score, with the arrow of its direction.
        entries: the largest classes with at least two maps.
        classes: number of such classes.
        bins: mean maps of the images by score, from the lowest on (AggAtt: Rao et al. 2022); empty for fewer than ten maps.
        unscored: maps without a score, which are in no bin.
    """

    method: str
    score: str
    entries: Sequence[ClassEntry]
    classes: int
    bins: Sequence[Tile]
    unscored: int


def draw_classes(store: RunStore, records: pa.Table) -> ClassOverview | None:
    """Write the images of the overview to report/classes/ and return it.

    The maps are those of the first method that is no control. Means are over all images of a class; pictures over at most 16 of its images
    at equal distances. Flat, NaN and failed maps are counted, never averaged.

    Args:
        records: of rank 0.

    Returns:
        None if no class has two maps and there are fewer than ten maps.
    """
    info = store.metadata()
    methods = info["config"]["methods"]
    method = next((name for name in methods if not is_control(name)), methods[0])
    of_method = pc.equal(records["method"], method)
    score = _score_column(records, of_method)
    names = ["row", "image_id", "status", "target", "target_name", "probability"]
    columns = records.select([*names, score]).filter(of_method).rename_columns([*names, "score"])
    ok = columns.filter(pc.equal(columns["status"], "ok"))
    sizes, without = _count_classes(ok), _count_classes(columns.filter(pc.is_in(columns["status"], pa.array(["flat", "nan"]))))
    several = sorted((key for key, size in sizes.items() if size > 1), key=lambda key: (-sizes[key], key))
    if not several and len(ok) < 2 * _BINS:
        return None
    drawing = _Drawing(store, method, info)
    lower = score in METRICS and METRICS[score].lower_is_better
    with ThreadPoolExecutor(WORKERS) as workers:
        entries = [
            drawing.entry(number, key[1], _members(ok, key), without[key], lower, workers)
            for number, key in enumerate(several[:MAX_CLASSES])
        ]
    scored = ok.filter(pc.is_finite(ok["score"]))
    title = f"{METRICS[score].title} {METRICS[score].arrow}" if score in METRICS else "probability"
    return ClassOverview(method_title(method), title, entries, len(several), drawing.bins(scored, title), len(ok) - len(scored))


def _count_classes(rows: pa.Table) -> Counter[tuple[int, str]]:
    counts: Counter[tuple[int, str]] = Counter()
    for row in rows.group_by(["target", "target_name"]).aggregate([([], "count_all")]).to_pylist():
        counts[_class_of(row)] += row["count_all"]
    return counts


def _members(rows: pa.Table, key: tuple[int, str]) -> list[dict[str, Any]]:
    """Return the rows of one class; only those become Python's objects."""
    return [row for row in rows.filter(pc.equal(rows["target"], key[0])).to_pylist() if _class_of(row) == key]


def _class_of(row: Mapping[str, Any]) -> tuple[int, str]:
    return row["target"], row["target_name"] or f"class {row['target']}"


def _score_column(records: pa.Table, chosen: pa.ChunkedArray) -> str:
    """Return the column by which maps are compared.

    It is insertion, else the first metric that was measured, else the probability.
    """
    present = [name for name in ("insertion_auc", *METRICS) if name in records.column_names]
    measured = (name for name in present if (values := records[name].filter(chosen)).null_count < len(values))
    return next(measured, "probability")


class _Drawing:
    """Reading of maps and photographs, and writing of the overview's images."""

    def __init__(self, store: RunStore, method: str, info: Mapping[str, Any]) -> None:
        self._store, self._method = store, method
        self._array = open_array(store.storage.zarr("maps.zarr"), method)
        self._images = store.images_with_facts()
        self._storage, self._fill = info["config"]["storage"], fill_colour(info)
        height, width = self._array.shape[-2:]
        self._size: Size = (height, width)

    def entry(
        self, number: int, name: str, rows: Sequence[Mapping[str, Any]], without: int, lower: bool, workers: ThreadPoolExecutor
    ) -> ClassEntry:
        """Draw one class."""
        shown = [rows[index] for index in evenly_spaced(range(len(rows)), _AVERAGED)]
        maps = self._mean_map(shown)
        crops = [np.asarray(crop, np.float64) for crop in workers.map(self._crop, shown) if crop is not None]
        photograph = Image.fromarray(np.mean(crops, 0).round().astype(np.uint8)) if crops else Image.new("RGB", self._size[::-1], _GREY)
        text = f"mean of {len(shown):,} maps over that of {len(crops):,} photographs"
        mean = self._tile(f"{number:03d}-mean", "Mean map", f"Class {name}: {text}", overlay(photograph, maps), text)
        scored = sorted((row for row in rows if row["score"] is not None), key=lambda row: (row["score"], row["row"]), reverse=not lower)
        means = [float(np.mean([row[column] for row in chosen])) for column, chosen in (("probability", rows), ("score", scored)) if chosen]
        best, worst = (self._one(number, title, scored[place]) if scored else None for title, place in (("Best", 0), ("Worst", -1)))
        return ClassEntry(name, len(rows), without, means[0], means[1] if scored else None, mean, best, worst)

    def bins(self, rows: pa.Table, title: str) -> list[Tile]:
        """Draw the mean maps of five bins with as many images each, by score."""
        if len(rows) < 2 * _BINS:
            return []
        rising = np.lexsort((rows["row"].to_numpy(), rows["score"].to_numpy()))
        tiles = []
        for number in range(_BINS):
            members = rising[number * len(rising) // _BINS : (number + 1) * len(rising) // _BINS]
            shown = rows.take(evenly_spaced(members.tolist(), _PER_BIN)).to_pylist()
            lowest, highest = (rows["score"][int(members[place])].as_py() for place in (0, -1))
            limits = f"{lowest:.3f} to {highest:.3f}"
            note = f"{len(members):,} images" + (f", mean of {len(shown)}" if len(shown) < len(members) else "")
            alt = f"Mean map of the images with {title} from {limits}"
            tiles.append(self._tile(f"bin-{number + 1}", limits, alt, colour(self._mean_map(shown)), note))
        return tiles

    def _mean_map(self, rows: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        total: Floats = np.zeros(self._size)
        for row in rows:
            total += map_at(self._array, row["row"])
        return (total / len(rows)).astype(np.float32)

    def _one(self, number: int, title: str, row: Mapping[str, Any]) -> Tile:
        crop = self._crop(row) or Image.new("RGB", self._size[::-1], _GREY)
        picture = overlay(crop, map_at(self._array, row["row"]))
        alt = f"{title} map of the class {row['target_name']}: {row['image_id']}"
        return self._tile(f"{number:03d}-{title.lower()}", title, alt, picture, f"{row['score']:.3f}, {row['image_id']}")

    def _crop(self, row: Mapping[str, Any]) -> Image.Image | None:
        image = self._images.slice(row["row"], 1).to_pylist()[0]
        try:
            return read_crop(image, self._size, self._storage, self._fill)
        except UnreadableError:
            return None

    def _tile(self, kind: str, title: str, alt: str, picture: Image.Image, note: str) -> Tile:
        path = f"{FOLDER}/{kind}.jpg"
        self._store.storage.write(f"report/{path}", encode_jpeg(picture))
        return Tile(title, alt, path, note)
