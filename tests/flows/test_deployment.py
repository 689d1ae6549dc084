"""The users' front door, for real: server, work pool, worker, `prefect deployment run`, the flow on two Ray workers."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.prefect_server import Prefect
from tests.support.small_run import config, files, hdm, photographs
from tests.support.trainings import colours, training

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def run(prefect: Prefect, name: str, flow: str = "hdm", **parameters: object) -> tuple[int, str]:
    """`prefect deployment run FLOW/NAME --watch`: its exit code and what it and the flow said."""
    given = [part for key, value in parameters.items() for part in ("--param", f"{key}={json.dumps(value)}")]
    ended = prefect("deployment", "run", f"{flow}/{name}", "--watch", *given)
    return ended.returncode, ended.stdout + ended.stderr


def test_the_demo_deployment_explains_photographs(prefect: Prefect, tmp_path: Path) -> None:
    quick = {"hdm.steps": 1, "hdm.mix_steps": 1}
    code, said = run(prefect, "demo", output=str(tmp_path), limit=2, changes=quick)
    assert code == 0, said
    records = pq.read_table(tmp_path / "demo" / "records")
    assert records["status"].to_pylist() == ["ok"] * 4
    assert (tmp_path / "demo" / "report" / "index.html").exists()
    artifacts = prefect("artifact", "ls").stdout
    for key in ("demo-progress", "demo-metrics", "demo-summary"):
        assert key in artifacts


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


def test_the_flow_leaves_what_the_command_leaves(prefect: Prefect, tmp_path: Path) -> None:
    """On two Ray workers each: the same bytes."""
    images = photographs(tmp_path / "photographs", 4)
    by_flow, by_command = config(tmp_path, images, name="flow"), config(tmp_path, images, name="command")
    assert hdm("run", by_command).returncode == 0
    code, said = run(prefect, "demo", config=str(by_flow))
    assert code == 0, said
    out = tmp_path / "out"
    assert files(out / "flow", "maps.zarr", "images") == files(out / "command", "maps.zarr", "images")


def test_the_flow_trains_a_classifier_as_the_command_does(prefect: Prefect, tmp_path: Path) -> None:
    images = colours(tmp_path / "images", 4)
    for name in ("flow", "command"):
        (tmp_path / name).write_text(yaml.safe_dump(training(images, name=name)))
    code, said = run(prefect, "cub-mobilenet", "hdm-train", config=str(tmp_path / "flow"))
    assert code == 0, said
    assert hdm("train", tmp_path / "command").returncode == 0
    flow, command = (tmp_path / "classifiers" / name for name in ("flow", "command"))
    assert (flow / "model.safetensors").read_bytes() == (command / "model.safetensors").read_bytes()
    artifacts = prefect("artifact", "ls").stdout
    for key in ("flow-training", "mobilenet-v2-classifier"):
        assert key in artifacts
