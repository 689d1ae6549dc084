"""A run's folder: what was planned, which shards are done, and what they hold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from pipeline.monitoring import telemetry
from pipeline.config.diff import differences
from pipeline.config.renamed import translate_run
from pipeline.config.schema import RunConfig
from pipeline.errors import InputError, one_line
from pipeline.plan import Plan, Shard
from pipeline.runs.leases import Lease
from pipeline.runs.maps import Arrays, create_arrays, encode_shard, array_shapes
from pipeline.runs.records import CURVES, FACTS, IMAGES, RECORDS, SCHEMA_VERSION, from_parquet, image_columns, to_parquet, with_facts, worst_statuses
from pipeline.runs.reuse import NAME as REUSE_NAME
from pipeline.runs.reuse import ReusePlan, from_bytes, to_bytes
from pipeline.storage.objects import Storage, to_json

MAX_PARALLEL_REQUESTS = 16  # objects that are read or written at the same time


class RunStore:
    """The run at {output}/{name}. A shard exists when, and only when, its commit does."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def from_config(cls, config: RunConfig, timeout: float = 10.0) -> RunStore:
        """The place of a configuration's run, with the patience of `Storage`.

        Raises:
            InputError: if the output's protocol is unknown.
        """
        return cls(Storage.of(config.output, config.name, config.storage, timeout))

    @classmethod
    def open(cls, url: str, options: dict[str, Any] | None = None) -> RunStore:
        """An existing run.

        Raises:
            InputError: if there is none at this URL.
        """
        try:
            store = cls(Storage(url, options))
            store.metadata()
        except (OSError, ValueError, ImportError) as error:
            raise InputError(f"{url}: no run of hdm ({one_line(error)}); give the folder that holds run.json") from None
        return store

    @property
    def url(self) -> str:
        """Where the run is."""
        return self.storage.url("")

    def create(self, plan: Plan, reuse: ReusePlan | None = None) -> bool:
        """Lays the run out, or finds it laid out by the same plan. True if it is new.

        run.json comes last: without it there is no run, whatever else lies there.

        Args:
            reuse: what a new run takes from earlier ones.

        Raises:
            InputError: if the place holds a run of another plan, or cannot be written.
        """
        try:
            if self.storage.exists("run.json"):
                self._compare(plan)
                return False
            if self.done() and not self.storage.exists("run.json"):
                raise InputError(f"{self.url} holds the shards of a run that has no run.json; choose another name or remove the folder")
            self.storage.write("images.parquet", to_parquet(image_columns(plan.samples), IMAGES))
            shapes = array_shapes(plan.config.methods, len(plan.samples), plan.side, plan.stages, plan.config.ranks)
            if reuse is not None:
                self.storage.write(REUSE_NAME, to_bytes(reuse))
            create_arrays(self.storage.zarr("maps.zarr"), shapes, plan.config.compute.shard_size)
            if not self.storage.create("run.json", to_json(run_json(plan))):
                self._compare(plan)  # another driver was faster
                return False
        except json.JSONDecodeError as error:
            raise InputError(f"{self.url}/run.json is broken ({one_line(error)}); choose another name or remove the folder") from None
        except OSError as error:
            raise InputError(f"output {self.url} cannot be written: {one_line(error)}; choose another with --output") from None
        return True

    def metadata(self) -> dict[str, Any]:
        """Read run.json, with the keys of earlier versions translated; `renamed_keys` lists those that were."""
        return translate_run(self.storage.read_json("run.json"))

    def is_done(self, shard: int) -> bool:
        """Whether a shard is committed."""
        return self.storage.exists(commit_name(shard))

    def done(self) -> set[int]:
        """The shards that are committed: one listing."""
        stems = (name.removesuffix(".json") for name in self.storage.names("commits") if name.endswith(".json"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def write_shard(
        self,
        shard: Shard,
        arrays: Arrays,
        records: Sequence[dict[str, Any]],
        image_facts: Sequence[dict[str, Any]],
        config: RunConfig,
        lease: Lease | None = None,
    ) -> bool:
        """Writes a shard's objects and commits them with their checksums. False if it was committed meanwhile.

        Args:
            records: rows of RECORDS; those that were measured also have the curves of CURVES.
            lease: renewed before anything is written and again before the commit, as the fence.

        Raises:
            LeaseLostError: if the lease was lost; there is no commit then.
        """
        objects = {
            f"maps.zarr/{name}": data for name, data in encode_shard(shard.index, shard.start, config.compute.shard_size, arrays).items()
        }
        curves = [record for record in records if record.get("deletion") is not None]
        for folder, rows, schema in (("records", records, RECORDS), ("curves", curves, CURVES), ("images", image_facts, FACTS)):
            objects[f"{folder}/part-{shard.index:06d}.parquet"] = to_parquet(rows, schema)
        commit = {
            "shard": shard.index,
            "rows": [shard.start, shard.stop],
            "config_hash": config.hash(),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in objects.items()},
        }
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
        """What the run takes from earlier ones; None if nothing."""
        try:
            return from_bytes(self.storage.read(REUSE_NAME), self.metadata()["images"])
        except FileNotFoundError:
            return None

    def records(self, shards: Iterable[int] | None = None) -> pa.Table:
        """The records of all committed shards, or of some, in row order."""
        return from_parquet(self._parts("records", shards), RECORDS)

    def record_parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns of the records, a committed shard at a time, in row order."""

        def read(name: str) -> pa.Table:
            return from_parquet([self.storage.read(name)], RECORDS, columns)

        with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
            yield from readers.map(read, self._names("records", self.done()))

    def statuses(self) -> dict[str, int]:
        """How many images of the committed shards ended how, each counted under the worst of its methods' statuses."""
        return dict(sum((Counter(worst_statuses(part)) for part in self.record_parts(["row", "status"])), Counter[str]()))

    def image_facts(self, shards: Iterable[int] | None = None) -> pa.Table:
        """What reading the images of all committed shards, or of some, told."""
        return from_parquet(self._parts("images", shards), FACTS)

    def curves(self, shards: Iterable[int] | None = None) -> Iterator[pa.Table]:
        """The curves of the committed shards, or of some, a part at a time; a run that an earlier version began may lack them."""
        names = set(self.storage.names("curves"))
        for index in sorted(self.done() if shards is None else shards):
            if (name := f"part-{index:06d}.parquet") in names:
                yield from_parquet([self.storage.read(f"curves/{name}")], CURVES)

    def images(self) -> pa.Table:
        """images.parquet."""
        return from_parquet([self.storage.read("images.parquet")], IMAGES)

    def images_with_facts(self) -> pa.Table:
        """images.parquet with what reading the images has told so far."""
        return with_facts(self.images(), self.image_facts())

    def write_image_facts(self) -> None:
        """Puts what reading the images told into images.parquet."""
        self.storage.write("images.parquet", to_parquet(self.images_with_facts(), IMAGES))

    def _parts(self, folder: str, shards: Iterable[int] | None) -> list[bytes]:
        with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
            return list(readers.map(self.storage.read, self._names(folder, self.done() if shards is None else shards)))

    def _names(self, folder: str, shards: Iterable[int]) -> list[str]:
        return [f"{folder}/part-{index:06d}.parquet" for index in sorted(shards)]

    def _compare(self, plan: Plan) -> None:
        there, here = self.metadata(), run_json(plan)
        if old := there.get("renamed_keys"):
            raise InputError(
                f"{self.url} was made by an earlier version of hdm, whose configuration has {', '.join(old)}: "
                "it can be read, but not continued; choose another name for this run"
            )
        if there.get("schema_version") == SCHEMA_VERSION and there["config_hash"] != here["config_hash"]:
            differing = ", ".join(differences(there["identity"], here["identity"]))
            raise InputError(
                f"{self.url} was started with configuration {there['config_hash'][:12]}, this is {here['config_hash'][:12]}; "
                f"they differ in {differing}; choose another name for this run"
            )
        for key, what in (("schema_version", "schema version"), ("model_fingerprint", "classifier"), ("dataset_listing", "dataset")):
            if there.get(key) != here[key]:
                raise InputError(
                    f"{self.url} was started with another {what} ({there.get(key)}, now {here[key]}); choose another name for this run"
                )


def commit_name(shard: int) -> str:
    """A commit's object below the run."""
    return f"commits/{shard:06d}.json"


def run_json(plan: Plan) -> dict[str, Any]:
    """What run.json says of a run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": plan.config.name,
        "config": plan.config.model_dump(mode="json"),
        "identity": plan.config.identity(),
        "config_hash": plan.config.hash(),
        "model_fingerprint": plan.weights_digest,
        "interface": plan.preprocess_identity,
        "dataset_listing": plan.dataset_digest(),
        "images": len(plan.samples),
        "shards": len(plan.shards),
        "passes_per_image": plan.passes_per_image,
        "seed": plan.config.seed,
        "versions": {name: version(name) for name in ("hdm-pipeline", "torch", "torchvision", "ray", "zarr", "pyarrow")},
    }
