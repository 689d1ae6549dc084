"""Two runs, image by image: what the model said, where it looked, and how faithful the maps were, before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array, read_maps
from pipeline.runs.records import SCHEMA_VERSION, STATUSES, top_rank

Show = Callable[[int, int], None]

_AT_ONCE = 8  # maps that are compared at the same time: they stay in the processor's cache

_RECORD = ["row", "method", "status", "target", "target_name", "probability", "region", *METRICS]


@dataclass(frozen=True)
class Drift:
    """What changed between two runs.

    Attributes:
        images: how many are the same, changed, gone, new or not done yet.
        differences: what differs between both configurations, and their weights.
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
        """The methods that both runs have, in the registry's order."""
        return list(dict.fromkeys(statistic.method for statistic in self.statistics))


def compare(before: RunStore, after: RunStore, show: Show = lambda done, maps: None) -> Drift:
    """Compares what both runs have done so far; nothing is written.

    The maps are read a shard at a time; of every image some numbers are held.

    Args:
        show: told now and then how many maps of how many were compared.

    Raises:
        InputError: if there is nothing to compare, or the runs cannot be compared.
    """
    infos = before.metadata(), after.metadata()
    for store, info in zip((before, after), infos, strict=True):
        if (there := info.get("schema_version")) != SCHEMA_VERSION:
            raise InputError(
                f"{store.url} has schema version {there}, and this hdm reads {SCHEMA_VERSION}: compare with the hdm that made it"
            )
    methods = _methods(before, after, infos)
    _same_question(before, after, infos)
    try:
        _same_size(before, after, methods)
        images, counts = match(before, after)
        table = _table(before, after, images, methods, same_metrics=infos[0]["config"]["metrics"] == infos[1]["config"]["metrics"])
        table = _with_likeness(before, after, table, methods, infos[1]["config"]["compute"]["shard_size"], show)
    except FileNotFoundError as error:
        raise InputError(f"a shard that is committed is not there ({error}); `hdm verify` says what is damaged") from None
    return Drift(before, after, counts, _differences(infos), table, tuple(summarise(table)))


def _methods(before: RunStore, after: RunStore, infos: tuple[Mapping[str, Any], Mapping[str, Any]]) -> list[str]:
    first, second = (info["config"]["methods"] for info in infos)
    if not (common := METHODS.sort(method for method in first if method in second)):
        raise InputError(f"no method is in both runs: {before.url} has {', '.join(first)}, {after.url} has {', '.join(second)}")
    return common


def _same_question(before: RunStore, after: RunStore, infos: tuple[Mapping[str, Any], Mapping[str, Any]]) -> None:
    """Refuses maps of classes that were chosen in another way: they would differ, and not because the model does."""
    first, second = (_asked(info["config"].get("target", "predicted")) for info in infos)
    if first != second:
        raise InputError(f"{before.url} explains the class {first!r} and {after.url} {second!r}: run both with one `target`")


def _asked(target: Any) -> Any:
    return "predicted" if isinstance(target, Mapping) else target  # of the K likeliest the first is compared


def _same_size(before: RunStore, after: RunStore, methods: list[str]) -> None:
    one, other = (open_array(store.storage.zarr("maps.zarr"), methods[0]).shape[-2:] for store in (before, after))
    if one != other:
        sizes = " and of ".join(f"{height} x {width}" for height, width in (one, other))
        raise InputError(f"{before.url} and {after.url} have maps of {sizes} pixels: run both with one classifier.crop")


def _differences(infos: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[str, ...]:
    first, second = ({"weights": info["model_fingerprint"][:12], **info["identity"]} for info in infos)
    return tuple(differences(first, second))


def _table(before: RunStore, after: RunStore, images: pa.Table, methods: list[str], same_metrics: bool) -> pa.Table:
    """All of DRIFT that the records know."""
    old, new = (_records(store, images[f"row_{when}"].to_numpy(), methods) for store, when in ((before, "before"), (after, "after")))
    image = images.take(pa.array(np.repeat(np.arange(len(images)), len(methods))))
    columns: dict[str, Any] = {name: image[name] for name in ("row_before", "row_after", "image_id", "sha256")}
    labels = pc.coalesce(image["class_name"], pc.cast(image["label"], pa.string()), old["target_name"])
    columns |= {"class_name": labels, "method": new["method"], "status": _worse(old["status"], new["status"])}
    for name in ("target", "target_name", "probability"):
        columns |= {f"{name}_before": old[name], f"{name}_after": new[name]}
    # By name: a classifier that has learnt more classes may number them anew.
    columns["flipped"] = pc.not_equal(old["target_name"], new["target_name"])
    columns["probability_change"] = pc.subtract(new["probability"], old["probability"])
    same_region = pc.equal(old["region"], new["region"])  # a box and a segmentation cannot be compared
    for name, metric in METRICS.items():
        if same_metrics or metric.map_only:  # the settings of metrics do not change these
            change = pc.subtract(new[name], old[name])
            columns[f"{name}_change"] = pc.if_else(same_region, change, None) if metric.needs_region else change
    empty = pa.nulls(len(image), pa.float32())
    return pa.table({name: columns.get(name, empty) for name in DRIFT.names}, schema=DRIFT)


def _records(store: RunStore, rows: NDArray[np.int64], methods: list[str]) -> pa.Table:
    """The records of rank 0 of some rows, an image's methods together."""
    records = top_rank(store.records()).select(_RECORD)
    records = records.filter(pc.is_in(records["method"], value_set=pa.array(methods)))
    row, method = records["row"].to_numpy(), pc.index_in(records["method"], value_set=pa.array(methods)).to_numpy()
    place = np.full((max(row.max(), rows.max()) + 1, len(methods)), -1)
    place[row, method] = np.arange(len(records))
    return records.take(pa.array(place[rows].ravel()))


def _worse(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.Array:
    order = pa.array(STATUSES)
    return order.take(pc.max_element_wise(*(pc.index_in(status, value_set=order) for status in (one, other))))


def _with_likeness(before: RunStore, after: RunStore, table: pa.Table, methods: list[str], shard_size: int, show: Show) -> pa.Table:
    """The table with how alike the maps are."""
    names = ("spearman", "ssim", "overlap")
    found = np.full((3, len(table)), np.nan)
    ok = pc.equal(table["status"], "ok").to_numpy().reshape(-1, len(methods))
    rows = [table[f"row_{when}"].to_numpy().reshape(-1, len(methods))[:, 0] for when in ("before", "after")]
    done, every = 0, int(ok.sum())
    with ThreadPoolExecutor(2) as readers:
        for number, method in enumerate(methods):
            arrays = [open_array(store.storage.zarr("maps.zarr"), method) for store in (before, after)]
            for some in _by_shard(np.flatnonzero(ok[:, number]), rows[1], shard_size):
                maps = list(readers.map(read_maps, arrays, [row[some] for row in rows]))
                for start in range(0, len(some), _AT_ONCE):
                    pair = [each[start : start + _AT_ONCE] for each in maps]
                    places = some[start : start + _AT_ONCE] * len(methods) + number
                    found[:, places] = spearman(*pair), ssim(*pair), overlap(*pair)
                done += len(some)
                show(done, every)
    found[:, np.isnan(found[0])] = np.nan  # constant, though it is said to be ok: a shard of maps.zarr is missing
    drift = (1 - found[2] + (1 - found[0]) / 2) / 2
    for name, values in zip((*names, "drift"), (*found, drift), strict=True):
        place = DRIFT.get_field_index(name)
        table = table.set_column(place, DRIFT.field(place), pa.array(values, pa.float32(), from_pandas=True))
    return table


def _by_shard(pairs: NDArray[np.int64], rows: NDArray[np.int64], shard_size: int) -> Iterator[NDArray[np.int64]]:
    """The pairs in groups whose rows lie in one shard of the run after."""
    shards = rows[pairs] // shard_size
    for shard in np.unique(shards):
        yield pairs[shards == shard]
