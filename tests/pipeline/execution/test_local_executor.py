"""Runs in the driver's own process: without Ray, and with the leases, retries and bytes of a run on Ray."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.cli.main import main
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.errors import RunError
from pipeline.execution.cost import measure_cost
from pipeline.execution.driver import RunSummary, explain_run, plan_run
from pipeline.explain.shard import explain_shard
from pipeline.monitoring.progress import Progress
from pipeline.plan import make_plan
from pipeline.runs import RunStore
from pipeline.runs.leases import is_free, lease_name
from pipeline.storage.objects import to_json
from tests.support.fault_runs import contents
from tests.support.plans import configuration, mapping, save_picture
from tests.support.small_run import config as small_config
from tests.support.small_run import photographs

COMPUTE = {"executor": "local", "shard_size": 2, "batch_size": 1}


@pytest.fixture
def local(tmp_path: Path) -> RunConfig:
    """Five photographs in three shards."""
    return configuration(**keys(tmp_path))


def keys(folder: Path, **compute: Any) -> dict[str, Any]:
    for number in range(5):
        save_picture(folder / "images" / f"{number}.png", seed=number)
    dataset = {"kind": "folder", "root": str(folder / "images")}
    return {"methods": ["grad_cam"], "dataset": dataset, "compute": COMPUTE | compute, "output": str(folder / "runs")}


def explained(config: RunConfig, on_progress: Callable[[Progress], None] = lambda progress: None) -> tuple[RunSummary, RunStore]:
    plan, store = plan_run(config)
    return explain_run(plan, store, on_progress), store


def disturb(monkeypatch: pytest.MonkeyPatch, disturbance: Callable[[int, int], BaseException | None]) -> list[int]:
    """Let attempts of shards fail, as a function of (shard, attempt) decides; returns the shards in the order of their attempts."""
    attempts: list[int] = []

    def disturbed(classifier: Any, config: Any, shard: Any, *arguments: Any) -> Any:
        attempts.append(shard.index)
        if (error := disturbance(shard.index, attempts.count(shard.index))) is not None:
            raise error
        return explain_shard(classifier, config, shard, *arguments)

    monkeypatch.setattr("pipeline.execution.worker.explain_shard", disturbed)
    return attempts


@pytest.mark.slow
@pytest.mark.server
def test_the_bytes_are_those_of_a_run_on_ray(tmp_path: Path) -> None:
    images = photographs(tmp_path / "photographs", 5)
    (images / "cats" / "broken.png").write_bytes(b"no image")
    found = {}
    for executor in ("local", "ray"):
        summary, store = explained(load_config(str(small_config(tmp_path, images, name=executor)), {"compute.executor": executor}))
        assert summary.statuses == {"ok": 5, "unreadable": 1}
        assert summary.passes == sum(store.records()["passes"].to_pylist())
        found[executor] = contents(store)
    assert {name.partition("/")[0] for name in found["local"]} == {"maps.zarr", "records", "curves", "images"}
    assert found["local"] == found["ray"]


@pytest.mark.slow
def test_ray_is_neither_imported_nor_started(tmp_path: Path) -> None:
    code = """
import json, sys, pipeline
from pipeline.execution.cost import measure_cost
config = json.load(sys.stdin)
cost = measure_cost(pipeline.make_plan(config))
summary = pipeline.run(config)
print(json.dumps([cost.workers, summary.statuses, "ray" in sys.modules, summary.report]))
"""
    source = json.dumps(mapping(**keys(tmp_path)))
    done = subprocess.run([sys.executable, "-c", code], input=source, capture_output=True, text=True, check=True)
    workers, statuses, imported, report = json.loads(done.stdout)
    assert (workers, statuses, imported) == (1, {"ok": 5}, False)
    assert Path(report).exists()


def test_the_command_runs_locally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(json.dumps(mapping(**keys(tmp_path))))
    monkeypatch.setattr("sys.argv", ["hdm", "run", str(tmp_path / "tiny.yaml"), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert (facts["images"], facts["shards"], facts["statuses"], facts["set_aside"]) == (5, 3, {"ok": 5}, [])
    assert "5 of 5 images" in err


def test_the_cost_is_measured_in_this_process(local: RunConfig) -> None:
    cost = measure_cost(make_plan(local))
    assert (cost.workers, cost.device) == (1, "cpu")
    assert cost.seconds > cost.start_seconds > 0
    assert not Path(local.output).exists()


def test_progress_is_reported_and_torch_keeps_its_threads(local: RunConfig) -> None:
    reports: list[Progress] = []
    torch.set_num_threads(2)
    try:
        summary, _ = explained(local, reports.append)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert reports[0].note == "starting workers"
    assert (reports[-1].done, reports[-1].total) == (5, 5)
    assert summary.passes == 5
    assert 0 < summary.worker_seconds <= summary.seconds


def test_a_shard_that_fails_is_tried_again(local: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = disturb(monkeypatch, lambda shard, attempt: ValueError("broken") if shard == 0 and attempt < 3 else None)
    summary, store = explained(local)
    assert attempts == [0, 1, 2, 0, 0], "the others come first"
    assert summary.failed_shards == []
    assert store.done() == {0, 1, 2}


def test_a_shard_that_fails_every_time_is_listed_and_the_rest_is_done(local: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = disturb(monkeypatch, lambda shard, attempt: ValueError("broken") if shard == 1 else None)
    summary, store = explained(local)
    assert attempts.count(1) == local.compute.max_attempts
    assert [(failed.shard.index, failed.error) for failed in summary.failed_shards] == [(1, "ValueError: broken")]
    assert summary.failed_images == 2
    assert store.done() == {0, 2}


def test_a_full_storage_ends_the_run(local: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = disturb(monkeypatch, lambda shard, attempt: OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(RunError, match=r"the storage is full: .*; make room"):
        explained(local)
    assert attempts == [0]


def test_ctrl_c_gives_the_lease_back_and_the_next_run_resumes(local: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        disturb(patch, lambda shard, attempt: KeyboardInterrupt() if shard == 1 else None)
        with pytest.raises(KeyboardInterrupt):
            explained(local)
    store = RunStore.from_config(local)
    assert store.done() == {0}
    assert is_free(store.storage.read_json(lease_name(1)))
    summary, _ = explained(local)
    assert (summary.already_done, summary.statuses) == (1, {"ok": 5})


def test_a_shard_that_another_driver_holds_is_waited_for_and_taken_over(tmp_path: Path) -> None:
    config = configuration(**keys(tmp_path, lease_seconds=1.0))
    _, store = plan_run(config)
    alive = f"{os.uname().nodename} {os.getppid()} 0"  # a process that is there, but never renews its lease
    store.storage.write(lease_name(0), to_json({"holder": alive, "beat": 0, "until": "2999-01-01T00:00:00+00:00"}))
    summary, _ = explained(config)
    assert summary.statuses == {"ok": 5}
    assert store.storage.read_json("commits/000000.json")["holder"].split()[1] == str(os.getpid())
