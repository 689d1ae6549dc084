"""Image by image comparison of two runs: classes, maps and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hdm_core import METHODS, METRICS
from hdm_core.similarity import overlap, spearman, ssim
from pipeline.config.diff import differences
from pipeline.drift.matching import MatchCounts, match_images
from pipeline.drift.schema import DRIFT
from pipeline.drift.summary import Statistic, summarise
from pipeline.errors import InputError
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array, read_maps
from pipeline.runs.measured import measured_settings, same_numbers
from pipeline.runs.records import SCHEMA_VERSION, STATUSES, top_rank

_BATCH_SIZE = 8  # maps compared together: few enough to stay in the processor's cache

_RECORD_COLUMNS = ["row", "method", "status", "target", "target_name", "probability", "region", *METRICS]


@dataclass(frozen=True)
class Drift:
    """Result of the comparison of two runs.

    Attributes:
        images: numbers of images that are the same, changed, gone, new or not done yet.
        differences: one line for each difference between the configurations, the weights' digests included.
        table: rows of the schema DRIFT in the order of the run after; an image's methods are adjacent.
        statistics: means over the images with their intervals, over all images and by class.
    """

    before: RunStore
    after: RunStore
    images: MatchCounts
    differences: tuple[str, ...]
    table: pa.Table
    statistics: tuple[Statistic, ...]

    @property
    def methods(self) -> list[str]:
        """Methods that both runs have, in the registry's order."""
        return list(dict.fromkeys(statistic.method for statistic in self.statistics))


def compare(before: RunStore, after: RunStore, on_progress: ProgressCallback = no_progress) -> Drift:
    """Compare the finished shards of two runs, without writing anything.

    Maps are read one shard at a time; only a few numbers per image stay in memory.

    Args:
        on_progress: called with the number of maps compared, after each shard of a method.

    Raises:
        InputError: if the runs have no images in common or cannot be compared.
    """
    metadata = before.metadata(), after.metadata()
    for store, info in zip((before, after), metadata, strict=True):
        if (found := info.get("schema_version")) != SCHEMA_VERSION:
            raise InputError(
                f"{store.url} has schema version {found}, and this hdm reads {SCHEMA_VERSION}: compare with the hdm that made it"
            )
    methods = _common_methods(before, after, metadata)
    _check_same_target(before, after, metadata)
    try:
        _check_same_size(before, after, methods)
        images, counts = match_images(before, after)
        first, second = (measured_settings(store.storage, info) for store, info in zip((before, after), metadata, strict=True))
        same_metrics = second is not None and same_numbers(first, second)
        table = _table_without_maps(before, after, images, methods, same_metrics)
        table = _add_similarity(before, after, table, methods, metadata[1]["config"]["compute"]["shard_size"], on_progress)
    except FileNotFoundError as error:
        raise InputError(f"a committed shard is missing ({error}); `hdm verify` lists the damage") from None
    return Drift(before, after, counts, _config_differences(metadata), table, tuple(summarise(table)))


def _common_methods(before: RunStore, after: RunStore, metadata: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[str]:
    first, second = (info["config"]["methods"] for info in metadata)
    if not (common := METHODS.sort(method for method in first if method in second)):
        raise InputError(f"no method is in both runs: {before.url} has {', '.join(first)}, {after.url} has {', '.join(second)}")
    return common


def _check_same_target(before: RunStore, after: RunStore, metadata: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    """Refuse runs with different targets: maps would differ even for one model."""
    first, second = (_compared_target(info["config"].get("target", "predicted")) for info in metadata)
    if first != second:
        raise InputError(f"{before.url} explains the class {first!r} and {after.url} {second!r}: run both with one `target`")


def _compared_target(target: Any) -> Any:
    return "predicted" if isinstance(target, Mapping) else target  # of the K most probable classes the first is compared


def _check_same_size(before: RunStore, after: RunStore, methods: list[str]) -> None:
    one, other = (open_array(store.storage.zarr("maps.zarr"), methods[0]).shape[-2:] for store in (before, after))
    if one != other:
        sizes = " and of ".join(f"{height} x {width}" for height, width in (one, other))
        raise InputError(f"{before.url} and {after.url} have maps of {sizes} pixels: run both with one classifier.resize and crop")


def _config_differences(metadata: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[str, ...]:
    first, second = ({"weights": info["model_fingerprint"][:12], **info["identity"]} for info in metadata)
    return tuple(differences(first, second))


def _table_without_maps(before: RunStore, after: RunStore, images: pa.Table, methods: list[str], same_metrics: bool) -> pa.Table:
    """Build the table from the records; columns that need the maps are null."""
    old, new = (_records(store, images[f"row_{when}"].to_numpy(), methods) for store, when in ((before, "before"), (after, "after")))
    image = images.take(pa.array(np.repeat(np.arange(len(images)), len(methods))))
    columns: dict[str, Any] = {name: image[name] for name in ("row_before", "row_after", "image_id", "sha256")}
    labels = pc.coalesce(image["class_name"], pc.cast(image["label"], pa.string()), old["target_name"])
    columns |= {"class_name": labels, "method": new["method"], "status": _worse_status(old["status"], new["status"])}
    for name in ("target", "target_name", "probability"):
        columns |= {f"{name}_before": old[name], f"{name}_after": new[name]}
    # Compared by name: a classifier trained on more classes may number them differently.
    columns["flipped"] = pc.not_equal(old["target_name"], new["target_name"])
    columns["probability_change"] = pc.subtract(new["probability"], old["probability"])
    same_region = pc.equal(old["region"], new["region"])  # a proportion in a box and one in a segmentation are not comparable
    for name, metric in METRICS.items():
        if same_metrics or metric.map_only:  # the metric settings do not affect these
            change = pc.subtract(new[name], old[name])
            columns[f"{name}_change"] = pc.if_else(same_region, change, None) if metric.needs_region else change
    empty = pa.nulls(len(image), pa.float32())
    return pa.table({name: columns.get(name, empty) for name in DRIFT.names}, schema=DRIFT)


def _records(store: RunStore, rows: NDArray[np.int64], methods: list[str]) -> pa.Table:
    """Return the records of rank 0 of the given rows; an image's methods are adjacent."""
    records = top_rank(store.records(columns=[*_RECORD_COLUMNS, "rank"])).select(_RECORD_COLUMNS)
    records = records.filter(pc.is_in(records["method"], value_set=pa.array(methods)))
    row, method = records["row"].to_numpy(), pc.index_in(records["method"], value_set=pa.array(methods)).to_numpy()
    index = np.full((max(row.max(), rows.max()) + 1, len(methods)), -1)
    index[row, method] = np.arange(len(records))
    return records.take(pa.array(index[rows].ravel()))


def _worse_status(old: pa.ChunkedArray, new: pa.ChunkedArray) -> pa.Array:
    order = pa.array(STATUSES)
    return order.take(pc.max_element_wise(*(pc.index_in(status, value_set=order) for status in (old, new))))


def _add_similarity(
    before: RunStore, after: RunStore, table: pa.Table, methods: list[str], shard_size: int, on_progress: ProgressCallback
) -> pa.Table:
    """Fill in the similarity of the maps, and the drift that follows from it."""
    names = ("spearman", "ssim", "overlap")
    similarities = np.full((3, len(table)), np.nan)
    ok = pc.equal(table["status"], "ok").to_numpy().reshape(-1, len(methods))
    rows = [table[f"row_{when}"].to_numpy().reshape(-1, len(methods))[:, 0] for when in ("before", "after")]
    done, total = 0, int(ok.sum())
    with ThreadPoolExecutor(2) as readers:
        for number, method in enumerate(methods):
            arrays = [open_array(store.storage.zarr("maps.zarr"), method) for store in (before, after)]
            for images in _by_shard(np.flatnonzero(ok[:, number]), rows[1], shard_size):
                maps = list(readers.map(read_maps, arrays, [row[images] for row in rows]))
                for start in range(0, len(images), _BATCH_SIZE):
                    pair = [of_run[start : start + _BATCH_SIZE] for of_run in maps]
                    indices = images[start : start + _BATCH_SIZE] * len(methods) + number
                    similarities[:, indices] = spearman(*pair), ssim(*pair), overlap(*pair)
                done += len(images)
                on_progress(Progress(done, total, "maps"))
    # A constant map whose status is ok: its shard of maps.zarr is missing.
    similarities[:, np.isnan(similarities[0])] = np.nan
    drift = (1 - similarities[2] + (1 - similarities[0]) / 2) / 2
    for name, values in zip((*names, "drift"), (*similarities, drift), strict=True):
        column = DRIFT.get_field_index(name)
        table = table.set_column(column, DRIFT.field(column), pa.array(values, pa.float32(), from_pandas=True))
    return table


def _by_shard(pairs: NDArray[np.int64], rows: NDArray[np.int64], shard_size: int) -> Iterator[NDArray[np.int64]]:
    """Group the pairs by the shard of the run after that holds their rows."""
    shards = rows[pairs] // shard_size
    for shard in np.unique(shards):
        yield pairs[shards == shard]
