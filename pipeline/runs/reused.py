"""A shard's explanations that an earlier run holds already, read there."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.runs.maps import STAGES, open_array, read_maps
from pipeline.runs.records import CURVES, FACTS
from pipeline.runs.reuse import ReusePlan
from pipeline.runs.store import RunStore
from pipeline.storage.objects import Storage

_log = logging.getLogger(__name__)

# What a record says of the map and not of the run that it stands in.
_OWN = ("run", "shard", "row", "image_id", "method", "rank", "label")


@dataclass
class ReusedResults:
    """What need not be computed.

    Attributes:
        maps: array's name -> row of the shard -> what the earlier run's array holds for the image.
        outcomes: (row, method, rank) -> the record, with its curves, but for what says where it stands.
        facts: row -> what reading the image told.
    """

    maps: dict[str, dict[int, NDArray[np.float16]]] = field(default_factory=dict)
    outcomes: dict[tuple[int, str, int], dict[str, Any]] = field(default_factory=dict)
    image_facts: dict[int, dict[str, Any]] = field(default_factory=dict)

    def has(self, row: int, method: str) -> bool:
        """Whether a row's explanation by a method is there."""
        return (row, method, 0) in self.outcomes


def read_reused(reuse: ReusePlan, storage: Mapping[str, Any], timeout: float) -> ReusedResults:
    """Reads what a shard takes from earlier runs; a run that is gone by now leaves its part to be computed.

    Args:
        reuse: for the shard's rows.
        storage: fsspec options of the earlier runs' place.
        patience: for so many seconds it is waited for.
    """
    kept = ReusedResults()
    for number, url in enumerate(reuse.runs):
        wanted = {method: rows for method, places in reuse.sources.items() if len(rows := np.flatnonzero(places[:, 0] == number))}
        if not wanted:
            continue
        try:
            _read(kept, RunStore(Storage(url, storage, timeout)), wanted, reuse.sources)
        except (FileNotFoundError, KeyError) as error:  # a KeyError: Zarr's of an array that is not there
            _log.warning("%s was to be reused and is gone: its explanations are computed anew (%s)", url, error)
    return kept


def _read(kept: ReusedResults, store: RunStore, wanted: Mapping[str, NDArray[np.int64]], places: Mapping[str, NDArray[np.int64]]) -> None:
    info = store.metadata()
    size = info["config"]["compute"]["shard_size"]
    there = {method: places[method][rows, 1] for method, rows in wanted.items()}
    parts = sorted({int(row) // size for rows in there.values() for row in rows})
    records, facts = store.records(parts), store.image_facts(parts)
    curves = pa.concat_tables([CURVES.empty_table(), *store.curves(parts)])
    maps_of_run = store.storage.zarr("maps.zarr")
    found = ReusedResults()
    told = {row["row"]: row for row in facts.to_pylist()}
    for method, rows in wanted.items():
        for name in (method, STAGES) if method == "hdm" else (method,):
            maps = read_maps(open_array(maps_of_run, name), there[method], every_rank=True)
            found.maps[name] = dict(zip(rows.tolist(), maps, strict=True))
        of_row = _by_row(records, method)
        drawn = _by_row(curves, method)
        for row, old in zip(rows.tolist(), there[method].tolist(), strict=True):
            for rank, record in of_row[old].items():
                outcome = {name: value for name, value in record.items() if name not in _OWN}
                outcome["reused_from"] = record["reused_from"] or info["name"]
                if rank in drawn.get(old, {}):
                    outcome |= {name: drawn[old][rank][name] for name in ("deletion", "insertion")}
                found.outcomes[row, method, rank] = outcome
            found.image_facts[row] = {name: told[old][name] for name in FACTS.names if name != "row"}
    for name, images in found.maps.items():  # all of a run's or nothing: a file that is missing leaves no half
        kept.maps.setdefault(name, {}).update(images)
    kept.outcomes.update(found.outcomes)
    kept.image_facts.update(found.image_facts)


def _by_row(table: pa.Table, method: str) -> dict[int, dict[int, dict[str, Any]]]:
    """Row -> rank -> the row of a table that is about one method."""
    rows: dict[int, dict[int, dict[str, Any]]] = defaultdict(dict)
    for record in table.filter(pc.equal(table["method"], method)).to_pylist():
        rows[record["row"]][record["rank"]] = record
    return dict(rows)
