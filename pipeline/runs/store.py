"""RunStore: a run's plan, commits, maps and tables on storage."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.renamed import translate_run
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError, one_line
from pipeline.monitoring import telemetry
from pipeline.plan import Plan, Shard
from pipeline.runs.images import FACTS, IMAGES, image_columns, with_facts
from pipeline.runs.leases import Lease
from pipeline.runs.maps import Arrays, array_shapes, create_arrays, encode_shard
from pipeline.runs.metadata import check_same_plan, run_json
from pipeline.runs.parts import MEASURES, encode_records
from pipeline.runs.records import CURVES, RECORDS, Record, from_parquet, to_parquet
from pipeline.runs.reuse import NAME as REUSE_NAME
from pipeline.runs.reuse import ReusePlan, from_bytes, to_bytes
from pipeline.runs.statuses import count_errors, worst_statuses
from pipeline.storage.objects import Storage, to_json

MAX_PARALLEL_REQUESTS = 16  # objects read or written at the same time


class RunStore:
    """A run at {output}/{name}; a shard exists if and only if its commit does."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def from_config(cls, config: RunConfig, timeout: float = 10.0) -> RunStore:
        """Return the store of a configuration's run, whether or not the run exists.

        Args:
            timeout: seconds for which storage requests are retried, see `Storage`.

        Raises:
            InputError: if the output's protocol is unknown.
        """
        return cls(Storage.of(config.output, config.name, config.storage, timeout))

    @classmethod
    def open(cls, url: str, options: dict[str, Any] | None = None) -> RunStore:
        """Open an existing run.

        Raises:
            InputError: if there is no run at this URL.
        """
        try:
            store = cls(Storage(url, options))
            store.metadata()
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"{url}: no run of hdm ({one_line(error)}); give the folder that holds run.json") from None
        return store

    @property
    def url(self) -> str:
        """URL of the run's folder."""
        return self.storage.url("")

    def create(self, plan: Plan, reuse: ReusePlan | None = None) -> bool:
        """Create the run if it does not exist.

        run.json is written last: without it there is no run, whatever else the folder holds.

        Args:
            reuse: the results that a new run takes from earlier ones.

        Returns:
            True if the run is new, False if the same plan has created it before.

        Raises:
            InputError: if the folder holds a run of another plan, or cannot be written.
        """
        try:
            if self.storage.exists("run.json"):
                check_same_plan(self.url, self.metadata(), plan)
                return False
            if self.done() and not self.storage.exists("run.json"):
                raise InputError(f"{self.url} holds the shards of a run that has no run.json; choose another name or remove the folder")
            self.storage.write("images.parquet", to_parquet(image_columns(plan.samples), IMAGES))
            shapes = array_shapes(
                plan.config.methods, len(plan.samples), plan.size, plan.stages, plan.config.ranks, plan.pieces, plan.config.signed_methods
            )
            if reuse is not None:
                self.storage.write(REUSE_NAME, to_bytes(reuse))
            create_arrays(self.storage.zarr("maps.zarr"), shapes, plan.config.compute.shard_size)
            if not self.storage.create("run.json", to_json(run_json(plan))):
                check_same_plan(self.url, self.metadata(), plan)  # another driver was faster
                return False
        except json.JSONDecodeError as error:
            raise InputError(f"{self.url}/run.json is broken ({one_line(error)}); choose another name or remove the folder") from None
        except OSError as error:
            raise InputError(f"output {self.url} cannot be written: {one_line(error)}; choose another with --output") from None
        return True

    def metadata(self) -> dict[str, Any]:
        """Read run.json.

        Keys of earlier versions are translated; `renamed_keys` lists them.
        """
        return translate_run(self.storage.read_json("run.json"))

    def is_done(self, shard: int) -> bool:
        """Return True if a shard is committed."""
        return self.storage.exists(commit_name(shard))

    def done(self) -> set[int]:
        """Return the indices of the committed shards, from one listing."""
        stems = (name.removesuffix(".json") for name in self.storage.names("commits") if name.endswith(".json"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def write_shard(
        self,
        shard: Shard,
        arrays: Arrays,
        records: Sequence[Record],
        image_facts: Sequence[dict[str, Any]],
        config: RunConfig,
        lease: Lease | None = None,
        batch_size: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Write a shard's objects and commit them with their checksums.

        Args:
            arrays: maps, stages and pieces of evidence of the shard's rows.
            image_facts: rows of FACTS.
            lease: renewed before anything is written and again before the commit, as the fence.
            batch_size: images per forward pass, for a shard with a smaller batch than the run's; the commit names it.
            metadata: added to that of the file of records.

        Returns:
            False if another worker has committed the shard meanwhile.

        Raises:
            LeaseLostError: if the lease was lost; nothing is committed then.
        """
        maps = encode_shard(shard.index, shard.start, config.compute.shard_size, arrays)
        objects = {f"maps.zarr/{name}": data for name, data in maps.items()}
        for folder, data in {**encode_records(records, config.metrics, metadata), "images": to_parquet(image_facts, FACTS)}.items():
            objects[f"{folder}/part-{shard.index:06d}.parquet"] = data
        commit = {
            "shard": shard.index,
            "rows": [shard.start, shard.stop],
            "config_hash": config.hash(),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in objects.items()},
        }
        if batch_size is not None:
            commit["batch_size"] = batch_size
        if lease is not None:
            commit["holder"] = lease.holder
            lease.renew()
        with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as writers:
            list(writers.map(self.storage.write, objects, objects.values()))
        telemetry.count("hdm_bytes_written", sum(map(len, objects.values())), run=config.name)
        if lease is not None:
            lease.renew()
        return self.storage.create(commit_name(shard.index), to_json(commit))

    def reuse(self) -> ReusePlan | None:
        """Return the results that the run takes from earlier runs, or None."""
        try:
            return from_bytes(self.storage.read(REUSE_NAME), self.metadata()["images"])
        except FileNotFoundError:
            return None

    def records(self, shards: Iterable[int] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the records of the committed shards, or of some shards, in row order.

        Args:
            columns: names; None reads all, about 300 bytes per row.
        """
        return pa.concat_tables([from_parquet([], RECORDS, columns), *self.record_parts(columns, shards)])

    def record_parts(self, columns: Sequence[str] | None = None, shards: Iterable[int] | None = None) -> Iterator[pa.Table]:
        """Yield the records of the committed shards, or of some, in row order.

        There is one table per shard.

        Args:
            columns: names; None reads all.
        """

        def read(name: str) -> pa.Table:
            return from_parquet([self.storage.read(name)], RECORDS, columns)

        with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
            yield from readers.map(read, self._names("records", self.done() if shards is None else shards))

    def record_schema(self) -> pa.Schema:
        """Return the columns of the first committed shard's records, else of RECORDS."""
        names = self._names("records", self.done())
        return pq.read_schema(pa.BufferReader(self.storage.read(names[0]))) if names else RECORDS

    def uninstalled_metrics(self) -> pa.Schema:
        """Return the columns of the records' metrics that are not installed here.

        They are the float32 columns that RECORDS does not have: a run's further columns are metrics.
        """
        schema = self.record_schema()
        return pa.schema([field for field in schema if field.type == pa.float32() and field.name not in RECORDS.names])

    def statuses(self) -> dict[str, int]:
        """Count the images of the committed shards by status.

        An image counts under the worst status of its methods.
        """
        return dict(sum((Counter(worst_statuses(part)) for part in self.record_parts(["row", "status"])), Counter[str]()))

    def errors(self) -> Counter[tuple[str, str]]:
        """Count the images of the committed shards by status and error.

        An image with two errors counts under both.
        """
        return sum(map(count_errors, self.record_parts(["row", "status", "error"])), Counter[tuple[str, str]]())

    def image_facts(self, shards: Iterable[int] | None = None) -> pa.Table:
        """Return the image facts of the committed shards, or of some shards."""
        return from_parquet(self._parts("images", shards), FACTS)

    def curves(self, shards: Iterable[int] | None = None) -> Iterator[pa.Table]:
        """Yield the curves of the committed shards, or of some, one table per shard.

        Shards of an earlier version may have none.
        """
        return self._existing_parts("curves", CURVES, shards)

    def measures(self, shards: Iterable[int] | None = None) -> Iterator[pa.Table]:
        """Yield the metrics by baseline of the committed shards, or of some.

        There is one table per shard; a run with one baseline has none.
        """
        return self._existing_parts("measures", MEASURES, shards)

    def images(self) -> pa.Table:
        """Return images.parquet."""
        return from_parquet([self.storage.read("images.parquet")], IMAGES)

    def images_with_facts(self) -> pa.Table:
        """Return images.parquet with the image facts of the committed shards."""
        return with_facts(self.images(), self.image_facts())

    def write_image_facts(self) -> None:
        """Write the image facts of the committed shards into images.parquet."""
        self.storage.write("images.parquet", to_parquet(self.images_with_facts(), IMAGES))

    def _existing_parts(self, folder: str, schema: pa.Schema, shards: Iterable[int] | None) -> Iterator[pa.Table]:
        """Yield the files of the committed shards, or of some, that a folder has."""
        names = set(self.storage.names(folder))
        for index in sorted(self.done() if shards is None else shards):
            if (name := f"part-{index:06d}.parquet") in names:
                yield from_parquet([self.storage.read(f"{folder}/{name}")], schema)

    def _parts(self, folder: str, shards: Iterable[int] | None) -> list[bytes]:
        """Read the files of the committed shards, or of some, in a folder."""
        with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
            return list(readers.map(self.storage.read, self._names(folder, self.done() if shards is None else shards)))

    def _names(self, folder: str, shards: Iterable[int]) -> list[str]:
        """Return the paths of shards' files in a folder, in row order."""
        return [f"{folder}/part-{index:06d}.parquet" for index in sorted(shards)]


def commit_name(shard: int) -> str:
    """Return the path of a shard's commit below the run."""
    return f"commits/{shard:06d}.json"
