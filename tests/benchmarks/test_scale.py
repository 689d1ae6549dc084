"""`python -m benchmarks pool`, `plan` and `store` on a real Ray, disk and S3 server."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pipeline.plan
from benchmarks.scale import _counts
from benchmarks.store import bench_store
from pipeline.datasets import Masks
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.runs.maps import encode_shard
from pipeline.storage.objects import Storage
from tests.support.plans import refused, results, write_all
from tests.support.s3_server import S3
from tests.support.small_run import benchmark


@pytest.mark.server
def test_bench_pool_keeps_sleeping_workers_busy_and_leaves_nothing(tmp_path: Path) -> None:
    sizes = ("--workers", "3", "--image-seconds", 0.05, "--shard-size", 4, "--images", 250, "--side", 16)
    ended = benchmark("pool", *sizes, "--output", tmp_path / "out", "--json")
    assert ended.returncode == 0, ended.stderr
    three, nothing, write = json.loads(ended.stdout.splitlines()[-1])["pool"]
    assert [row["work"] for row in (three, nothing, write)] == ["sleep", "nothing", "write"]
    assert (three["workers"], three["images"], three["ideal"]) == (3, 48, 60)
    assert three["seconds"] > 4 * 4 * 0.05, "every worker sleeps for four shards of four images"
    assert three["rate"] == pytest.approx(three["images"] / three["seconds"])
    assert 0.5 < three["busy"] < 1, "most of the time is sleep, whatever else the machine does"
    assert three["busy"] + three["tail"] <= 1
    assert nothing["images"] >= 250
    assert write["images"] == 250
    assert nothing["rate"] > write["rate"] > 0
    assert all(len(write[name]) == 3 and min(write[name]) > 0 for name in ("driver_mib", "worker_mib"))
    assert list((tmp_path / "out").iterdir()) == []


def test_bench_pool_refuses_invalid_numbers_of_workers() -> None:
    for workers in ("1,many", "0", ""):
        assert refused(lambda workers=workers: _counts(workers)) == f"--workers {workers}: write whole numbers such as 1,4,16"


@pytest.mark.slow
def test_bench_plan_resumes_a_half_done_run() -> None:
    ended = benchmark("plan", "--rows", 30_000, "--shard-size", 100, "--json")
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])["plan"]
    assert (facts["rows"], facts["shards"], facts["left"]) == (30_000, 300, 150)
    assert facts["seconds"] == pytest.approx(sum(step["seconds"] for step in facts["steps"]))


def test_the_listing_is_the_hash_of_all_samples_whatever_the_chunk(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing is part of a run's identity: another value would refuse all stored runs."""
    first, *rest = plan.samples
    plan = replace(plan, samples=[replace(first, masks=Masks(("a", "b"), "any", "/r"), bbox=(1.0, 2.0, 3.0, 4.5)), *rest])
    rows = [["0.png", "photographs/0.png", 0, None, {"paths": ["a", "b"], "ink": "any", "root": "/r"}, [1.0, 2.0, 3.0, 4.5]]]
    rows += [[f"{i}.png", f"photographs/{i}.png", i % 2, None, None, None] for i in range(1, 5)]
    expected = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    assert plan.dataset_digest() == expected
    monkeypatch.setattr(pipeline.plan, "_BATCH", 2)
    assert plan.dataset_digest() == expected
    assert replace(plan, samples=[]).dataset_digest() == hashlib.sha256(b"[]").hexdigest()


def test_bench_store_measures_the_runs_own_maps(plan: Plan, store: RunStore, tmp_path: Path, s3: S3) -> None:
    store.create(plan)
    write_all(store, plan)
    (tmp_path / "place").mkdir()
    places = {"disk": Storage(str(tmp_path / "place")), "url": Storage(s3.url, s3.storage)}
    found = bench_store(store, places, images=4, maps=64)
    assert found.maps == 4 * len(plan.config.methods)
    codecs = {(codec.dtype, codec.codec): codec for codec in found.codecs}
    ours = codecs["float16", "blosc zstd 3 bitshuffle"]
    arrays = results(plan, plan.shards[0])[0]
    written = encode_shard(0, 0, 2, {"hdm": arrays["hdm"]})["hdm/c/0/0/0"]
    assert ours.bytes_by_method["hdm"] == pytest.approx(len(written) / 2, rel=0.05), "as the run stores them"
    assert ours.error == 0
    assert 0 < codecs["uint8", "none"].error <= 0.5 / 255 + 1e-6
    assert codecs["float32", "none"].bytes == pytest.approx(4 * math.prod(plan.size), rel=0.1)
    for name in places:
        one, many = (next(row for row in found.layouts if (row.place, row.chunk, row.shard) == (name, c, 256)) for c in (1, 16))
        assert one.one_requests == many.one_requests == 2, "the shard's index and the chunk"
        index = 16 * 256 + 4  # two numbers a chunk, and a checksum
        assert many.one_bytes - index / 16 > 3 * (one.one_bytes - index) > 0, "sixteen maps must be read to have one"
        assert min(one.encode_mib, one.put_mib, one.read_mib, one.one_ms) > 0
    assert list((tmp_path / "place").iterdir()) == []
    assert not any("bench" in name for name in s3.files().find(s3.url))


def test_a_run_without_maps_is_refused(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    assert "no shard is done yet" in refused(lambda: bench_store(store, {}, 4, 64))


def test_the_statuses_of_a_run_are_counted_shard_by_shard(plan: Plan, store: RunStore) -> None:
    store.create(plan)
    for shard in plan.shards:
        arrays, records, facts = results(plan, shard)
        records[0] = replace(records[0], status="flat")
        if shard.index == 1:
            records[-1] = replace(records[-1], status="failed")
        store.write_shard(shard, arrays, records, facts, plan.config)
    assert store.statuses() == {"flat": 3, "failed": 1, "ok": 1}
    assert np.concatenate([part["row"].to_numpy() for part in store.record_parts(["row"])]).tolist() == sorted([*range(5)] * 2)
