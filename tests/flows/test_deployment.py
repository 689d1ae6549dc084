"""The users' front door, for real: server, work pool, worker, `prefect deployment run`, the flow on two Ray workers."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.prefect_server import Prefect
from tests.support.small_run import config, files, hdm
from tests.support.trainings import run_training, training_config, write_colour_dataset

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def run(prefect: Prefect, name: str, flow: str = "hdm", **parameters: object) -> tuple[int, str]:
    """Run `prefect deployment run FLOW/NAME --watch`; return its exit code and what it and the flow printed."""
    options = [part for key, value in parameters.items() for part in ("--param", f"{key}={json.dumps(value)}")]
    ended = prefect("deployment", "run", f"{flow}/{name}", "--watch", *options)
    return ended.returncode, ended.stdout + ended.stderr


def test_the_demo_deployment_leaves_what_the_command_leaves(prefect: Prefect, tmp_path: Path) -> None:
    """On two Ray workers each: the same bytes."""
    quick = {"hdm.steps": 1, "hdm.mix_steps": 1, "compute.workers": 2, "compute.shard_size": 1}
    flow, command = tmp_path / "flow", tmp_path / "command"
    code, said = run(prefect, "demo", output=str(flow), limit=2, changes=quick)
    assert code == 0, said
    records = pq.read_table(flow / "demo" / "records")
    assert records["status"].to_pylist() == ["ok"] * 4
    assert (flow / "demo" / "report" / "index.html").exists()
    artifacts = prefect("artifact", "ls").stdout
    for key in ("demo-progress", "demo-metrics", "demo-summary", "demo-output"):
        assert key in artifacts
    changes = [part for key, value in quick.items() for part in ("--set", f"{key}={value}")]
    ended = hdm("run", "demo", "--output", command, "--limit", 2, *changes)
    assert ended.returncode == 0, ended.stderr
    assert files(flow / "demo", "maps.zarr", "images") == files(command / "demo", "maps.zarr", "images")


def test_a_deployment_without_its_dataset_fails_with_one_clear_line(prefect: Prefect) -> None:
    code, _ = run(prefect, "cub-full")
    assert code == 1
    (failed,) = prefect.post("flow_runs/filter", flow_runs={"state": {"type": {"any_": ["FAILED"]}}})
    message = failed["state"]["message"]
    assert "dataset.root is missing" in message
    assert "cub_full_root" in message
    assert "\n" not in message
    logs = prefect.post("logs/filter", logs={"flow_run_id": {"any_": [failed["id"]]}})
    # Prefect's engine follows every failed run with a traceback of its own; the flow and its tasks must add none.
    ours = [entry["message"] for entry in logs if not entry["message"].startswith("Engine execution exited")]
    assert [text for text in ours if "Traceback" in text] == []


def test_the_flow_trains_a_classifier_as_the_command_does(prefect: Prefect, tmp_path: Path) -> None:
    images = write_colour_dataset(tmp_path / "images", 4)
    source = tmp_path / "training.yaml"
    source.write_text(yaml.safe_dump(training_config(images, name="flow")))
    code, said = run(prefect, "cub-mobilenet", "hdm-train", config=str(source))
    assert code == 0, said
    # The command in this process; that a process of its own gives the same bytes is in tests/pipeline/training.
    command = Path(run_training(images, name="command").url)
    assert (tmp_path / "classifiers" / "flow" / "model.safetensors").read_bytes() == (command / "model.safetensors").read_bytes()
    artifacts = prefect("artifact", "ls").stdout
    for key in ("flow-training", "mobilenet-v2-classifier"):
        assert key in artifacts


def test_a_missing_classifier_is_trained_by_a_task_before_the_plan(prefect: Prefect, tmp_path: Path) -> None:
    images = write_colour_dataset(tmp_path / "images", 4)
    (tmp_path / "training.yaml").write_text(yaml.safe_dump(training_config(images)))
    classifier = {"source": "checkpoint", "path": str(tmp_path / "classifiers" / "missing"), "train": str(tmp_path / "training.yaml")}
    compute = {"executor": "local", "shard_size": 4}
    source = config(tmp_path, images, name="trained", classifier=classifier, methods=["grad_cam"], compute=compute)
    code, said = run(prefect, "demo", config=str(source))
    assert code == 0, said
    (flow_run,) = prefect.post("flow_runs/filter", flow_runs={"name": {"like_": str(source)}})
    tasks = prefect.post("task_runs/filter", flow_runs={"id": {"any_": [flow_run["id"]]}}, sort="EXPECTED_START_TIME_ASC")
    names = [task["name"].rpartition("-")[0] for task in tasks]
    assert names == ["train", "plan", "explain", "hdm-tables"], "the last is the flow that aggregates"
    assert (tmp_path / "out" / "trained" / "report" / "index.html").exists()
