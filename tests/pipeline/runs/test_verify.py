"""Verification: damage is found and named, and its commits are revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.monitoring.progress import Progress
from pipeline.plan import Plan
from pipeline.runs import RunStore
from pipeline.runs.verify import revoke_commits, verify
from tests.support.plans import configuration, plan_of, results, write_all
from tests.support.small_run import hdm


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(configuration(output=str(tmp_path)))


@pytest.fixture
def store(plan: Plan) -> RunStore:
    store = RunStore.from_config(plan.config)
    store.create(plan)
    write_all(store, plan)
    return store


def test_an_undamaged_run_has_no_damage(store: RunStore) -> None:
    reported: list[Progress] = []
    report = verify(store, reported.append)
    assert (report.shards, report.objects, report.damaged) == (3, 3 * 6, {})  # two methods, the stages, three tables
    assert reported == [Progress(done, 3, "shards") for done in (1, 2, 3)]


def test_damage_is_found_and_named(store: RunStore, plan: Plan) -> None:
    run = Path(store.url)
    map_ = run / "maps.zarr/hdm/c/0/0/0"
    data = bytearray(map_.read_bytes())
    data[len(data) // 2] ^= 1  # one bit
    map_.write_bytes(data)
    (run / "records/part-000001.parquet").unlink()
    (run / "curves/part-000001.parquet").write_bytes(b"")
    (run / "commits/000002.json").write_text("{")
    assert verify(store).damaged == {
        0: ["maps.zarr/hdm/c/0/0/0 does not match its checksum"],
        1: ["curves/part-000001.parquet does not match its checksum", "records/part-000001.parquet is missing"],
        2: ["commits/000002.json is not a valid commit"],
    }


def test_damaged_shards_are_open_again_and_can_be_written_again(store: RunStore, plan: Plan) -> None:
    map_ = Path(store.url) / "maps.zarr/hdm/c/1/0/0"
    before = map_.read_bytes()
    map_.write_bytes(before[:-1])
    revoke_commits(store, verify(store))
    assert store.done() == {0, 2}
    assert store.write_shard(plan.shards[1], *results(plan, plan.shards[1]), plan.config)
    assert map_.read_bytes() == before
    assert not verify(store).damaged


@pytest.mark.server
def test_the_command_says_it_with_its_exit_code(store: RunStore) -> None:
    well = hdm("verify", store.url, "--json")
    assert well.returncode == 0, well.stderr
    assert json.loads(well.stdout) == {"run": store.url, "objects": 18, "shards": 3, "damaged": {}}
    (Path(store.url) / "records/part-000001.parquet").unlink()
    damaged = hdm("verify", store.url)
    assert damaged.returncode == 1
    assert "shard 1: records/part-000001.parquet is missing" in damaged.stderr
    assert f"hdm repair {store.url}" in damaged.stderr.replace("\n", "")
