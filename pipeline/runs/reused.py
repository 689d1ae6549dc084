"""Reader of the results that a shard takes from earlier runs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hdm_core import METHODS
from pipeline.runs.images import FACTS
from pipeline.runs.maps import EVIDENCE, STAGES, open_array, read_maps, signed_name
from pipeline.runs.parts import MEASURES, join_records
from pipeline.runs.records import CURVES, Record
from pipeline.runs.reuse import ReusePlan
from pipeline.runs.store import RunStore
from pipeline.storage.objects import Storage

_log = logging.getLogger(__name__)


@dataclass
class ReusedResults:
    """Results of a shard that need not be computed.

    Attributes:
        maps: array name -> row within the shard -> the image's maps in the earlier run's array.
        records: (row within the shard, method, rank) -> the earlier run's record, curves included.
        image_facts: row within the shard -> the columns of FACTS without `row`.
    """

    maps: dict[str, dict[int, NDArray[Any]]] = field(default_factory=dict)
    records: dict[tuple[int, str, int], Record] = field(default_factory=dict)
    image_facts: dict[int, dict[str, Any]] = field(default_factory=dict)

    def has(self, row: int, method: str) -> bool:
        """Return True if a method's results for a row of the shard are reused."""
        return (row, method, 0) in self.records

    def update(self, other: ReusedResults) -> None:
        """Add the results of another earlier run."""
        for name, maps in other.maps.items():
            self.maps.setdefault(name, {}).update(maps)
        self.records.update(other.records)
        self.image_facts.update(other.image_facts)


def read_reused(reuse: ReusePlan, storage: Mapping[str, Any], timeout: float) -> ReusedResults:
    """Read the results that a shard takes from earlier runs.

    Those of a run that no longer exists are left out, to be computed.

    Args:
        reuse: plan of the shard's rows.
        storage: fsspec options of the earlier runs.
        timeout: seconds for which storage requests are retried.
    """
    reused = ReusedResults()
    for index, url in enumerate(reuse.runs):
        rows = {method: np.flatnonzero(sources[:, 0] == index) for method, sources in reuse.sources.items()}
        # Method -> row within the shard -> row in the earlier run.
        run_rows = {m: dict(zip(some.tolist(), reuse.sources[m][some, 1].tolist(), strict=True)) for m, some in rows.items() if len(some)}
        if not run_rows:
            continue
        try:
            reused.update(_read_run(RunStore(Storage(url, storage, timeout)), run_rows))
        except (FileNotFoundError, KeyError) as error:  # Zarr raises KeyError for an array that does not exist
            _log.warning("%s was to be reused and is gone: its explanations are computed again (%s)", url, error)
    return reused


def _read_run(store: RunStore, run_rows: Mapping[str, Mapping[int, int]]) -> ReusedResults:
    """Read one earlier run's results, all or, where a file is missing, none."""
    metadata = store.metadata()
    shard_size = metadata["config"]["compute"]["shard_size"]
    shards = sorted({run_row // shard_size for rows in run_rows.values() for run_row in rows.values()})
    records, facts = store.records(shards), {row["row"]: row for row in store.image_facts(shards).to_pylist()}
    curves = pa.concat_tables([CURVES.empty_table(), *store.curves(shards)])
    measures = pa.concat_tables([MEASURES.empty_table(), *store.measures(shards)])
    joined: dict[tuple[int, str], dict[int, Record]] = defaultdict(dict)
    for record in join_records(records, curves, measures):
        joined[record.row, record.method][record.rank] = record
    reused = ReusedResults(maps=_read_maps(store, run_rows))
    for method, rows in run_rows.items():
        for row, run_row in rows.items():
            for rank, record in joined[run_row, method].items():
                reused.records[row, method, rank] = replace(record, reused_from=record.reused_from or metadata["name"])
            reused.image_facts[row] = {name: facts[run_row][name] for name in FACTS.names if name != "row"}
    return reused


def _read_maps(store: RunStore, run_rows: Mapping[str, Mapping[int, int]]) -> dict[str, dict[int, NDArray[Any]]]:
    """Return array name -> row within the shard -> the image's maps."""
    zarr_store = store.storage.zarr("maps.zarr")
    maps: dict[str, dict[int, NDArray[Any]]] = {}
    identity = store.metadata()["identity"]
    of_hdm = ("hdm", STAGES, EVIDENCE) if "evidence" in identity else ("hdm", STAGES)
    for method, rows in run_rows.items():
        signed = (signed_name(method),) if identity.get("signed") and METHODS[method].signed else ()
        for name in of_hdm if method == "hdm" else (method, *signed):
            values = read_maps(open_array(zarr_store, name), np.array(list(rows.values()), np.int64), every_rank=True)
            maps[name] = dict(zip(rows, values, strict=True))
    return maps
