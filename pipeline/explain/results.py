"""Results of one shard, collected while its images are explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hdm_core import Evidence, Explanation
from hdm_core.settings import HDMSettings
from pipeline.config.schema import EVIDENCE_METHOD, RunConfig
from pipeline.datasets import Sample
from pipeline.plan import Shard
from pipeline.runs.evidence_facts import EvidenceFacts
from pipeline.runs.maps import EVIDENCE, STAGES, array_shapes, signed_name
from pipeline.runs.records import Record, Status
from pipeline.runs.reused import ReusedResults


@dataclass(frozen=True)
class ShardSeconds:
    """Seconds of a shard's computation.

    Attributes:
        explaining: from a batch's arrival to its last record: targets, methods, metrics.
        waiting: in which no batch had been read yet, and the network did nothing.
    """

    explaining: float
    waiting: float

    @property
    def share(self) -> float:
        """Share of the time in which images were explained, from 0 to 1."""
        total = self.explaining + self.waiting
        return self.explaining / total if total else 1.0

    def metadata(self) -> dict[str, str]:
        """Return them as metadata of the shard's file of records."""
        return {"hdm.seconds_explaining": f"{self.explaining:.3f}", "hdm.seconds_waiting": f"{self.waiting:.3f}"}


@dataclass(frozen=True)
class ShardResult:
    """Results of one shard.

    Attributes:
        arrays: name -> array of the shard's rows, see `array_shapes`.
        records: ordered by row, then by method, then by rank.
        image_facts: rows of FACTS, ordered by row.
        seconds: of the computation.
    """

    arrays: dict[str, NDArray[Any]]
    records: list[Record]
    image_facts: list[dict[str, Any]]
    seconds: ShardSeconds


class ResultCollector:
    """Collector of the maps, records and image facts of one shard.

    Rows are rows of the dataset, not of the shard.

    Args:
        samples: the shard's samples.
        size: height and width of the maps.
        device: name of the device that computes the maps.
        reused: results that are taken from earlier runs.
    """

    def __init__(
        self, config: RunConfig, shard: Shard, samples: Sequence[Sample], size: tuple[int, int], device: str, reused: ReusedResults
    ) -> None:
        self._config, self._shard, self._samples, self._device, self._reused = config, shard, samples, device, reused
        stages = next((settings.stages for settings in config.settings.values() if isinstance(settings, HDMSettings)), None)
        pieces = None if config.evidence is None else config.evidence.max_pieces
        shapes = array_shapes(config.methods, len(shard), size, stages, config.ranks, pieces, config.signed_methods)
        self._arrays = {name: np.zeros(shape, bool if name == EVIDENCE else np.float16) for name, shape in shapes.items()}
        self._records: dict[tuple[int, str, int], Record] = {}
        self._image_facts: dict[int, dict[str, Any]] = {}
        self._add_reused()

    def is_reused(self, row: int, method: str) -> bool:
        """Return True if a method's results for an image come from an earlier run."""
        return self._reused.has(row - self._shard.start, method)

    def open_rows(self) -> list[int]:
        """Return the images of which at least one method has to be computed."""
        rows = range(self._shard.start, self._shard.stop)
        return [row for row in rows if not all(self.is_reused(row, method) for method in self._config.methods)]

    def new_record(self, row: int, method: str, rank: int, status: Status, error: str | None = None) -> Record:
        """Return a record without map: run, shard, image and device are filled in."""
        sample = self._samples[row - self._shard.start]
        return Record(
            run=self._config.name,
            shard=self._shard.index,
            row=row,
            image_id=sample.image_id,
            label=sample.label,
            method=method,
            rank=rank,
            status=status,
            error=error,
            seed=self._config.seed,
            device=self._device,
        )

    def add_record(self, record: Record) -> None:
        """Add the record of one map."""
        self._records[record.row, record.method, record.rank] = record

    def explained_records(self, rows: Sequence[int]) -> list[Record]:
        """Return this run's own records of images, those that have a target."""
        return [
            record
            for (row, _, _), record in self._records.items()
            if row in rows and record.target is not None and record.reused_from is None
        ]

    def add_failed_image(self, row: int, status: Status, error: str) -> None:
        """Add the records of an image without results; its maps are zeros."""
        for method in self._config.methods:
            if not self.is_reused(row, method):
                for rank in range(self._config.ranks if self._config.fills_ranks else 1):
                    self._add_failed(row, method, rank, status, error)

    def add_failed_map(self, row: int, method: str, rank: int, error: str, status: Status = "failed") -> None:
        """Add the record of a map that failed, or was skipped; the map is zeros."""
        self._add_failed(row, method, rank, status, error)

    def add_maps(self, method: str, rows: Sequence[int], ranks: Sequence[int], explanation: Explanation) -> None:
        """Add a method's maps, signed maps if they are stored, and HDM's stages.

        All as float16.
        """
        shard_rows = [row - self._shard.start for row in rows]
        index = (shard_rows, list(ranks)) if self._config.ranks > 1 else (shard_rows,)
        self._arrays[method][index] = explanation.maps.half().cpu().numpy()
        if explanation.signed is not None and method in self._config.signed_methods:
            self._arrays[signed_name(method)][index] = explanation.signed.half().cpu().numpy()
        if explanation.stages is not None:
            self._arrays[STAGES][index] = explanation.stages.nan_to_num(0).half().cpu().numpy()

    def record(self, row: int, method: str, rank: int) -> Record | None:
        """Return the record of a map; None if there is none yet."""
        return self._records.get((row, method, rank))

    def add_evidence(self, rows: Sequence[int], ranks: Sequence[int], evidence: Evidence) -> None:
        """Add the pieces of evidence of images whose records of HDM were added."""
        masks = evidence.masks(self._arrays[EVIDENCE].shape[-3]).cpu().numpy()
        for number, (row, rank) in enumerate(zip(rows, ranks, strict=True)):
            index = (row - self._shard.start, rank) if self._config.ranks > 1 else (row - self._shard.start,)
            self._arrays[EVIDENCE][index] = masks[number]
            record = self._records[row, EVIDENCE_METHOD, rank]
            self.add_record(replace(record, evidence=EvidenceFacts.of(evidence, number)))

    def add_facts(self, row: int, image_facts: dict[str, Any]) -> None:
        """Add the facts of an image, in place of earlier ones."""
        self._image_facts[row] = {"row": row, **image_facts}

    def result(self, seconds: ShardSeconds) -> ShardResult:
        """Return the results of the whole shard in row order."""
        rows = range(self._shard.start, self._shard.stop)
        keys = [(row, method, rank) for row in rows for method in self._config.methods for rank in range(self._config.ranks)]
        # Every image has a record of rank 0; of further ranks only where it has so many classes.
        records = [self._records[key] for key in keys if key in self._records or key[2] == 0 or self._config.fills_ranks]
        return ShardResult(self._arrays, records, [self._image_facts[row] for row in rows], seconds)

    def _add_failed(self, row: int, method: str, rank: int, status: Status, error: str) -> None:
        """Add a record without map, in place of what an earlier attempt added."""
        index = (row - self._shard.start, rank) if self._config.ranks > 1 else (row - self._shard.start,)
        self._arrays[method][index] = 0
        if method in self._config.signed_methods:
            self._arrays[signed_name(method)][index] = 0
        if isinstance(self._config.settings[method], HDMSettings):
            self._arrays[STAGES][index] = 0
        if method == EVIDENCE_METHOD and EVIDENCE in self._arrays:
            self._arrays[EVIDENCE][index] = False
        self.add_record(self.new_record(row, method, rank, status, error))

    def _add_reused(self) -> None:
        """Add the reused results, as rows of this run."""
        for name, maps in self._reused.maps.items():
            if name in self._arrays:  # the earlier run may have signed maps that this one does not store
                self._arrays[name][list(maps)] = list(maps.values())
        for (shard_row, _, _), found in self._reused.records.items():
            # The earlier run may have been measured later on.
            record = found.unmeasured() if self._config.metrics is None else found
            row, sample = self._shard.start + shard_row, self._samples[shard_row]
            self.add_record(
                replace(record, run=self._config.name, shard=self._shard.index, row=row, image_id=sample.image_id, label=sample.label)
            )
        for shard_row, image_facts in self._reused.image_facts.items():
            self.add_facts(self._shard.start + shard_row, image_facts)
