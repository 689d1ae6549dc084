"""Walk over a run's committed shards that writes one file per map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import zarr

from hdm_core.on_photograph import scaled
from pipeline.datasets.images import UnreadableError
from pipeline.errors import InputError, suggest
from pipeline.export.names import file_name
from pipeline.export.pictures import draw
from pipeline.export.settings import ExportSettings
from pipeline.export.target import ExportTarget
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.runs import RunStore
from pipeline.runs.images import with_facts
from pipeline.runs.maps import map_at, open_array
from pipeline.runs.photographs import read_photograph
from pipeline.runs.where import Where

NO_PHOTOGRAPH = "no photograph"  # status in the manifest of a map whose photograph is gone

_WORKERS = 4  # images drawn in parallel; one of 24 megapixels takes about half a gigabyte


@dataclass
class ExportSummary:
    """Counts of an export.

    Attributes:
        url: of the folder; empty if nothing matched, and so nothing was written.
        matched: maps that were selected.
        files: that the manifest names.
        kept: of these, files that an interrupted export had written.
        statuses: status -> maps without a file: flat, nan, ..., or "no photograph".
        gone: image id and reason of each photograph that is gone.
    """

    url: str = ""
    matched: int = 0
    files: int = 0
    kept: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    gone: list[tuple[str, str]] = field(default_factory=list)


def export_run(
    store: RunStore,
    to: str,
    settings: ExportSettings,
    *,
    replace: bool = False,
    options: Mapping[str, Any] | None = None,
    on_progress: ProgressCallback = no_progress,
) -> ExportSummary:
    """Write a file per selected map of the committed shards, then manifest.csv.

    Memory is that of one shard. An interrupted export is continued by the same call.

    Args:
        to: folder or URL that is new or empty, or holds the same export, interrupted.
        replace: remove an earlier export first; files that are not of an export are never removed.
        options: fsspec options of `to`; those of the run by default.

    Raises:
        InputError: if a method or the condition is unknown or wrong, or the folder holds something else.
        RunError: if the target is full or refuses a file.
    """
    info = store.metadata()
    methods = _methods(settings, info["config"]["methods"])
    where = None if settings.where is None else Where(settings.where)
    storage = info["config"]["storage"]
    facts = {"run": store.url, "config_hash": info["config_hash"], "methods": methods, "settings": settings.as_dict()}
    target = ExportTarget(to, storage if options is None else options, facts)
    target.check(replace)
    walk = _Walk(store, settings, storage, target)
    rows: list[dict[str, Any]] = []
    images, shards = store.images(), sorted(store.done())
    for number, shard in enumerate(shards):
        on_progress(Progress(number, len(shards), "shards"))
        rows += walk.shard(shard, _selected(store, shard, images, methods, where))
    on_progress(Progress(len(shards), len(shards), "shards"))
    if rows:
        target.begin()
        target.finish(rows)
        walk.summary.url = target.storage.url("")
    return walk.summary


def _methods(settings: ExportSettings, known: Sequence[str]) -> list[str]:
    for name in settings.methods or ():
        if name not in known:
            raise InputError(f"--methods {name}: the run has no such method{suggest(name, known, list_all=True)}")
    return [name for name in known if settings.methods is None or name in settings.methods]


def _selected(
    store: RunStore, shard: int, images: pa.Table, methods: Sequence[str], where: Where | None
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Return the images of a shard with their selected records, in row order."""
    records = store.records([shard])
    of_shard = images.take(pc.index_in(pc.unique(records["row"]), images["row"]))
    of_shard = with_facts(of_shard, store.image_facts([shard]))
    records = records.filter(pc.is_in(records["method"], pa.array(methods, pa.string())))
    if where is not None:
        records = where(records, of_shard)
    image_of = {image["row"]: image for image in of_shard.to_pylist()}
    in_order = sorted(records.to_pylist(), key=itemgetter("row"))
    return [(image_of[row], list(group)) for row, group in groupby(in_order, itemgetter("row"))]


class _Walk:
    """Drawing and counting of a walk over the shards."""

    def __init__(self, store: RunStore, settings: ExportSettings, storage: Mapping[str, Any], target: ExportTarget) -> None:
        self.summary = ExportSummary()
        self._maps = store.storage.zarr("maps.zarr")
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._settings, self._storage, self._target = settings, storage, target

    def shard(self, shard: int, selected: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
        """Write a shard's files, and yield their rows of the manifest."""
        for method in {record["method"] for _, records in selected for record in records} - self._arrays.keys():
            self._arrays[method] = open_array(self._maps, method)
        if selected:
            self._target.begin()
        with ThreadPoolExecutor(_WORKERS) as workers:
            for (image, _), (rows, kept, gone) in zip(selected, workers.map(self._image, selected), strict=True):
                self.summary.matched += len(rows)
                self.summary.files += sum(bool(row["file"]) for row in rows)
                self.summary.kept += kept
                self.summary.statuses.update(row["status"] for row in rows if not row["file"])
                if gone:
                    self.summary.gone.append((image["image_id"], gone))
                yield from rows

    def _image(self, selected: tuple[dict[str, Any], list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], int, str]:
        """Write an image's files.

        Returns:
            Its rows of the manifest, the number of files that were there, and why the photograph is gone, else an empty text.
        """
        image, records = selected
        rows = [self._row(image, record) for record in records]
        missing = [(row, record) for row, record in zip(rows, records, strict=True) if row["file"] and not self._target.has(row["file"])]
        kept = sum(bool(row["file"]) for row in rows) - len(missing)
        photograph = None
        if missing and self._settings.kind == "overlays" and self._settings.photograph:
            try:
                photograph = read_photograph(image, self._storage)
            except UnreadableError as error:
                for row, _ in missing:
                    row.update(status=NO_PHOTOGRAPH, file="", error=str(error))
                return rows, kept, str(error)
            size, _ = scaled(photograph.size, image["crop"], self._settings.size)
            photograph = photograph if photograph.size == size else photograph.resize(size, reducing_gap=2.0)
        for row, record in missing:
            values = map_at(self._arrays[record["method"]], record["row"], record["rank"])
            self._target.write(row["file"], draw(values, photograph, record, image, self._settings))
        return rows, kept, ""

    def _row(self, image: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a map's row of the manifest; without a file unless its status is ok."""
        copied = {name: record[name] for name in ("row", "image_id", "method", "rank", "target", "target_name", "status", "error")}
        if record["status"] != "ok":
            return {**copied, "file": ""}
        name = file_name(record["row"], record["image_id"], record["rank"], self._settings.suffix)
        (width, height), box = scaled((image["width"], image["height"]), image["crop"], self._settings.size)
        edges = dict(zip(("left", "top", "right", "bottom"), (round(edge, 4) for edge in box), strict=True))
        return {**copied, "file": f"{record['method']}/{name}", "width": width, "height": height, **edges}
