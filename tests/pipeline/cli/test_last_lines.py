"""The last lines of a run and of `hdm status`: which images failed, why, and where it is recorded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.explain.shard import explain_shard
from tests.support.plans import mapping, save_picture

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `hdm COMMAND` on five photographs in three shards; returns the exit code, standard output and standard error."""
    for number in range(5):
        save_picture(tmp_path / "images" / f"{number}.png", seed=number)
    compute = {"executor": "local", "shard_size": 2, "batch_size": 2}
    dataset = {"kind": "folder", "root": str(tmp_path / "images")}
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(mapping(methods=["grad_cam"], dataset=dataset, compute=compute, output=str(tmp_path / "runs"))))

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        target = tmp_path / "runs" / "tiny" if name == "status" else config
        monkeypatch.setattr(sys, "argv", ["hdm", name, str(target), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def break_metrics(patch: pytest.MonkeyPatch) -> None:
    def evaluate(*_: Any, **__: Any) -> None:
        raise RuntimeError("required rank 4 tensor")

    patch.setattr("pipeline.explain.measure.evaluate", evaluate)


def break_shard(patch: pytest.MonkeyPatch, index: int) -> list[int]:
    attempts: list[int] = []

    def explain(classifier: Any, config: Any, shard: Any, *arguments: Any) -> Any:
        attempts.append(shard.index)
        if shard.index == index:
            raise ValueError("no such disk")
        return explain_shard(classifier, config, shard, *arguments)

    patch.setattr("pipeline.execution.worker.explain_shard", explain)
    return attempts


def test_a_run_without_failures_names_none(command: Command) -> None:
    code, out, err = command("run")
    assert code == 0
    assert "could not be explained" not in err
    assert "5: 5 ok" in out


def test_a_fault_of_the_network_is_named_with_its_images_and_is_computed_once(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    break_metrics(monkeypatch)
    attempts = break_shard(monkeypatch, index=-1)
    code, _, err = command("run")
    assert code == 3
    error = "RuntimeError: required rank 4 tensor (while the map was measured)"
    assert err.splitlines()[-1] == f"5 images could not be explained: 5 failed ({error}: 5 images); see the records' status and error"
    assert attempts == [0, 1, 2]
    assert "failed after all attempts" not in err
    code, out, _ = command("status")
    assert code == 0
    assert f"5 failed ({error}: 5 images)" in " ".join(out.split())
    facts = json.loads(command("status", "--json")[1])
    assert facts["errors"] == [{"status": "failed", "error": error, "images": 5}]
    facts = json.loads(command("run", "--json")[1])
    assert facts["errors"] == [{"status": "failed", "error": error, "images": 5}]


def test_different_errors_are_counted_by_status(command: Command, tmp_path: Path) -> None:
    for number, data in ((1, b""), (2, b""), (4, b"no image")):
        (tmp_path / "images" / f"{number}.png").write_bytes(data)
    code, out, err = command("run")
    assert code == 3
    assert err.splitlines()[-1] == (
        "3 images could not be explained: 3 unreadable (the file is empty: 2 images, and 1 more error); see the records' status and error"
    )
    assert "5: 2 ok, 3 unreadable" in out


def test_the_last_line_counts_images_of_a_failed_shard_as_without_records(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = break_shard(monkeypatch, index=1)
    code, _, err = command("run")
    assert code == 3
    assert attempts.count(1) == 3
    *_, shard, last = err.splitlines()
    assert shard == "shard 1 (rows 2-3) failed after all attempts: ValueError: no such disk"
    assert last == "2 images could not be explained: 2 in failed shards, which have no records: run it again to try them again"
    assert "see the records" not in err


def test_images_with_and_without_records_are_counted_separately(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images" / "0.png").write_bytes(b"")
    break_shard(monkeypatch, index=2)
    code, _, err = command("run")
    assert code == 3
    assert err.splitlines()[-1] == (
        "2 images could not be explained: 1 unreadable (the file is empty: 1 image); see the records' status and error; "
        "1 in failed shards, which have no records: run it again to try them again"
    )
