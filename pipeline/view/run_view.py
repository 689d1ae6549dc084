"""A run as the viewer shows it: its metadata, results and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow.compute as pc

from hdm_core import similarity
from pipeline.config.schema import EVIDENCE_METHOD
from pipeline.errors import InputError
from pipeline.runs import RunStore
from pipeline.runs.evidence_facts import EVIDENCE_COLUMNS, EvidenceFacts
from pipeline.view.catalogue import Catalogue
from pipeline.view.columns import Columns
from pipeline.view.database import Database, quoted
from pipeline.view.pictures import Pictures
from pipeline.view.query import Query
from pipeline.view.similar import Similar
from pipeline.view.state import State


class RunView:
    """A run, and with `against` a second one beside it.

    Args:
        store: of the run that is shown.
        against: of the run that it is compared with.

    Raises:
        InputError: if the two runs have no method in common.
    """

    def __init__(self, store: RunStore, against: RunStore | None = None) -> None:
        self.store, self.info = store, store.metadata()
        self.methods: list[str] = list(self.info["config"]["methods"])
        self.database = Database(["run", "other"])
        self.columns = Columns.of_run(store, self.info, against is not None)
        self.catalogue = Catalogue(store, self.info, self.columns, self.database, complete=self._count_all)
        self.pictures = Pictures(store, self.info)
        self.similar = Similar(self.pictures.maps, int(self.info["config"]["compute"]["shard_size"]), self.info["images"])
        self.other: RunView | None = None
        if against is not None:
            self.other = RunView(against)
            self.other.database.close()
            self.other.database = self.database
            self.other.columns = Columns(())
            self.other.catalogue = Catalogue(against, self.other.info, self.other.columns, self.database, "other")
            if not set(self.methods) & set(self.other.methods):
                raise InputError(
                    f"{store.url} and {against.url} have no method in common; --against needs a run with one of the same methods"
                )
        other = None if self.other is None else self.other.catalogue.table
        self.query = Query(self.database, self.columns, self.catalogue.table, other, self._version)

    def _count_all(self) -> None:
        """Count the images without a filter: a second for a million images."""
        with suppress(InputError):  # they are counted again by the page, which shows the error
            self.query.counts(State(self.methods[0]))

    def _version(self) -> int:
        """Return a number that grows with the shards that are read."""
        return len(self.catalogue.loaded) + (0 if self.other is None else len(self.other.catalogue.loaded))

    @property
    def title(self) -> str:
        """Name of the run."""
        return str(self.info["name"])

    def refresh(self, wait: float = 0.0) -> None:
        """Look for shards that were committed since, which are read in the background.

        Args:
            wait: seconds to wait for the first of them.
        """
        for view in (self, self.other):
            if view is not None:
                view.catalogue.refresh(wait)

    def wait(self) -> None:
        """Read all shards that are committed."""
        for view in (self, self.other):
            if view is not None:
                view.catalogue.refresh()
                view.catalogue.wait()

    def image(self, row: int) -> dict[str, Any] | None:
        """Return row, image_id, path and label of an image; None if its shard is not read."""
        if row // int(self.info["config"]["compute"]["shard_size"]) not in self.catalogue.loaded:
            return None
        found = self.database.rows(f"SELECT * FROM {quoted(self.catalogue.name)}.images WHERE row = ?", [row])
        return found[0] if found else None

    def images(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the images of some rows, by row."""
        marks = ", ".join("?" * len(rows))
        found = self.database.rows(f"SELECT * FROM {quoted(self.catalogue.name)}.images WHERE row IN ({marks})", rows) if rows else []
        return {image["row"]: image for image in found}

    def curves(self, row: int) -> dict[tuple[str, int], dict[str, Any]]:
        """Return an image's curves by method and rank; empty for a run without."""
        shard = row // int(self.info["config"]["compute"]["shard_size"])
        found = [curve for part in self.store.curves([shard]) for curve in part.filter(pc.equal(part["row"], row)).to_pylist()]
        return {(curve["method"], curve["rank"]): curve for curve in found}

    def evidence(self, row: int) -> EvidenceFacts | None:
        """Return the numbers of an image's search for evidence; None without one."""
        shard = row // int(self.info["config"]["compute"]["shard_size"])
        columns = ["row", "method", "rank", *(name for name, _ in EVIDENCE_COLUMNS)]
        found = self.store.records([shard], columns).to_pylist()
        keys = (row, EVIDENCE_METHOD, 0)
        return next((EvidenceFacts.from_row(each) for each in found if (each["row"], each["method"], each["rank"]) == keys), None)

    def agreement(self, record: Mapping[str, Any], method: str) -> tuple[float | None, str]:
        """Compare an image's map with that of the other run.

        Returns:
            Spearman's correlation of the pixels, and a sentence where there is none.
        """
        if self.other is None or record.get("other_row") is None:
            return None, "not in the other run"
        if record["status"] != "ok" or record["other_status"] != "ok":
            return None, "no map in at least one run"
        own, other = self.pictures.fact(record["row"]), self.other.pictures.fact(record["other_row"])
        if own["sha256"] != other["sha256"]:
            return None, "the photograph has changed"
        one, two = self.pictures.maps.read(method, record["row"]), self.other.pictures.maps.read(method, record["other_row"])
        if one.shape != two.shape or own["crop"] != other["crop"]:
            return None, "the networks saw different crops"
        value = float(similarity.spearman(one[None].astype(np.float16), two[None].astype(np.float16))[0])
        return (value, "") if np.isfinite(value) else (None, "a map is constant")

    def close(self) -> None:
        """Free the tables."""
        self.database.close()
