"""Comparison of the predictions, maps and metrics of two runs, image by image."""

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
from pipeline.config.diff import differences
from pipeline.drift.matching import Counts, match
from pipeline.drift.schema import DRIFT
from pipeline.drift.similarity import overlap, spearman, ssim
from pipeline.drift.summary import Statistic, summarise
from pipeline.errors import InputError
from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array, read_maps
from pipeline.runs.records import SCHEMA_VERSION, STATUSES, top_rank

_BATCH = 8  # maps that are compared at the same time: they stay in the processor's cache

_RECORD = ["row", "method", "status", "target", "target_name", "probability", "region", *METRICS]


@dataclass(frozen=True)
class Drift:
    """Changes between two runs.

    Attributes:
        images: numbers of images that are the same, changed, gone, new or not done yet.
        differences: between the two configurations and their weights, one text for each.
        table: of the schema DRIFT, in the order of the run after, an image's methods together.
        statistics: means over the images with their intervals, of all and by class.
    """

    before: RunStore
    after: RunStore
    images: Counts
    differences: tuple[str, ...]
    table: pa.Table
    statistics: tuple[Statistic, ...]

    @property
    def methods(self) -> list[str]:
        """Methods that both runs have, in the registry's order."""
        return list(dict.fromkeys(statistic.method for statistic in self.statistics))


def compare(before: RunStore, after: RunStore, on_progress: ProgressCallback = no_progress) -> Drift:
    """Compare what both runs have committed so far, without writing anything.

    The maps are read one shard at a time; memory holds a few numbers per image.

    Args:
        on_progress: called with the number of maps compared, after each shard of a method.

    Raises:
        InputError: if there is nothing to compare, or the runs cannot be compared.
    """
    infos = before.metadata(), after.metadata()
    for store, info in zip((before, after), infos, strict=True):
        if (version := info.get("schema_version")) != SCHEMA_VERSION:
            raise InputError(
                f"{store.url} has schema version {version}, and this hdm reads {SCHEMA_VERSION}: compare with the hdm that made it"
            )
    methods = _common_methods(before, after, infos)
    _check_targets(before, after, infos)
    try:
        _check_sizes(before, after, methods)
        images, counts = match(before, after)
        table = _table(before, after, images, methods, same_metrics=infos[0]["config"]["metrics"] == infos[1]["config"]["metrics"])
        table = _with_similarity(before, after, table, methods, infos[1]["config"]["compute"]["shard_size"], on_progress)
    except FileNotFoundError as error:
        raise InputError(f"a committed shard is missing ({error}); `hdm verify` lists what is damaged") from None
    return Drift(before, after, counts, _differences(infos), table, tuple(summarise(table)))


def _common_methods(before: RunStore, after: RunStore, infos: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[str]:
    first, second = (info["config"]["methods"] for info in infos)
    if not (common := [method for method in METHODS if method in first and method in second]):
        raise InputError(f"no method is in both runs: {before.url} has {', '.join(first)}, {after.url} has {', '.join(second)}")
    return common


def _check_targets(before: RunStore, after: RunStore, infos: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    """Refuse runs that explain differently chosen classes.

    Their maps would differ even if the model did not.
    """
    first, second = (_target_of(info["config"].get("target", "predicted")) for info in infos)
    if first != second:
        raise InputError(f"{before.url} explains the class {first!r} and {after.url} {second!r}: run both with one `target`")


def _target_of(target: Any) -> Any:
    return "predicted" if isinstance(target, Mapping) else target  # of the top K classes only the first is compared


def _check_sizes(before: RunStore, after: RunStore, methods: list[str]) -> None:
    old, new = (open_array(store.storage.zarr("maps.zarr"), methods[0]).shape[-2:] for store in (before, after))
    if old != new:
        sizes = " and of ".join(f"{height} x {width}" for height, width in (old, new))
        raise InputError(f"{before.url} and {after.url} have maps of {sizes} pixels: run both with one classifier.crop")


def _differences(infos: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[str, ...]:
    first, second = ({"weights": info["model_fingerprint"][:12], **info["identity"]} for info in infos)
    return tuple(differences(first, second))


def _table(before: RunStore, after: RunStore, images: pa.Table, methods: list[str], same_metrics: bool) -> pa.Table:
    """Fill the columns of DRIFT that come from the records."""
    old, new = (_records(store, images[f"row_{when}"].to_numpy(), methods) for store, when in ((before, "before"), (after, "after")))
    image = images.take(pa.array(np.repeat(np.arange(len(images)), len(methods))))
    columns: dict[str, Any] = {name: image[name] for name in ("row_before", "row_after", "image_id", "sha256")}
    labels = pc.coalesce(image["class_name"], pc.cast(image["label"], pa.string()), old["target_name"])
    columns |= {"class_name": labels, "method": new["method"], "status": _worst_status(old["status"], new["status"])}
    for name in ("target", "target_name", "probability"):
        columns |= {f"{name}_before": old[name], f"{name}_after": new[name]}
    # By name: a classifier retrained with more classes may number them differently.
    columns["flipped"] = pc.not_equal(old["target_name"], new["target_name"])
    columns["probability_change"] = pc.subtract(new["probability"], old["probability"])
    for metric in METRICS:
        if same_metrics or metric == "proportion":  # the proportion needs no network, so its settings do not matter
            columns[f"{metric}_change"] = pc.subtract(new[metric], old[metric])
    # The proportion inside a box is not comparable with the one inside a segmentation.
    columns["proportion_change"] = pc.if_else(pc.equal(old["region"], new["region"]), columns["proportion_change"], None)
    empty = pa.nulls(len(image), pa.float32())
    return pa.table({name: columns.get(name, empty) for name in DRIFT.names}, schema=DRIFT)


def _records(store: RunStore, rows: NDArray[np.int64], methods: list[str]) -> pa.Table:
    """Read the records of rank 0 of some rows, an image's methods together."""
    records = top_rank(store.records()).select(_RECORD)
    records = records.filter(pc.is_in(records["method"], value_set=pa.array(methods)))
    row, method = records["row"].to_numpy(), pc.index_in(records["method"], value_set=pa.array(methods)).to_numpy()
    positions = np.full((max(row.max(), rows.max()) + 1, len(methods)), -1)
    positions[row, method] = np.arange(len(records))
    return records.take(pa.array(positions[rows].ravel()))


def _worst_status(old: pa.ChunkedArray, new: pa.ChunkedArray) -> pa.Array:
    order = pa.array(STATUSES)
    return order.take(pc.max_element_wise(*(pc.index_in(status, value_set=order) for status in (old, new))))


def _with_similarity(
    before: RunStore, after: RunStore, table: pa.Table, methods: list[str], shard_size: int, on_progress: ProgressCallback
) -> pa.Table:
    """Add the columns that compare the maps to the table."""
    names = ("spearman", "ssim", "overlap")
    values = np.full((3, len(table)), np.nan)
    ok = pc.equal(table["status"], "ok").to_numpy().reshape(-1, len(methods))
    rows = [table[f"row_{when}"].to_numpy().reshape(-1, len(methods))[:, 0] for when in ("before", "after")]
    done, total = 0, int(ok.sum())
    with ThreadPoolExecutor(2) as readers:
        for number, method in enumerate(methods):
            arrays = [open_array(store.storage.zarr("maps.zarr"), method) for store in (before, after)]
            for pairs in _by_shard(np.flatnonzero(ok[:, number]), rows[1], shard_size):
                maps = list(readers.map(read_maps, arrays, [row[pairs] for row in rows]))
                for start in range(0, len(pairs), _BATCH):
                    batch = [each[start : start + _BATCH] for each in maps]
                    positions = pairs[start : start + _BATCH] * len(methods) + number
                    values[:, positions] = spearman(*batch), ssim(*batch), overlap(*batch)
                done += len(pairs)
                on_progress(Progress(done, total, "maps"))
    values[:, np.isnan(values[0])] = np.nan  # a constant map whose record is ok: a shard of maps.zarr is missing
    drift = (1 - values[2] + (1 - values[0]) / 2) / 2
    for name, column in zip((*names, "drift"), (*values, drift), strict=True):
        index = DRIFT.get_field_index(name)
        table = table.set_column(index, DRIFT.field(index), pa.array(column, pa.float32(), from_pandas=True))
    return table


def _by_shard(pairs: NDArray[np.int64], rows: NDArray[np.int64], shard_size: int) -> Iterator[NDArray[np.int64]]:
    """Group the pairs by the shard of the run after that holds their rows."""
    shards = rows[pairs] // shard_size
    for shard in np.unique(shards):
        yield pairs[shards == shard]
