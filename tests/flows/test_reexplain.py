"""Re-explanation through Prefect, for real: reuse, drift, its alarm, cancellation."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.flows.test_deployment import run
from tests.support.prefect_server import Prefect
from tests.support.small_run import LOCAL, config, hdm, photographs

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

QUICK: dict[str, Any] = {
    "methods": ["eigen_cam", "hdm"],
    "metrics": {"protocol": "rise"},
    "compute": {**LOCAL, "shard_size": 2, "batch_size": 1},
}


def until(true: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(1)
    return found


def flow_runs(prefect: Prefect, flow: str) -> list[dict[str, Any]]:
    """A flow's runs, the newest first, but for those that are only scheduled."""
    begun = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
    return prefect.post("flow_runs/filter", flows={"name": {"any_": [flow]}}, flow_runs=begun, sort="START_TIME_DESC")


def test_only_what_changed_is_computed_and_drift_beyond_a_limit_raises_the_alarm(prefect: Prefect, tmp_path: Path) -> None:
    images = photographs(tmp_path / "photographs", 4)
    source, out = str(config(tmp_path, images, **QUICK)), tmp_path / "out"
    ended = hdm("reexplain", source)
    assert ended.returncode == 0, ended.stderr
    (first,) = out.iterdir()

    code, said = run(prefect, "demo", "hdm-reexplain", config=source)
    assert code == 0, said
    latest = flow_runs(prefect, "hdm-reexplain")[0]
    assert latest["state"]["message"] == f"nothing changed since {first}: it is referred to, and no new run is made"
    assert list(out.iterdir()) == [first]

    Image.effect_noise((60, 50), 90).convert("RGB").save(images / "dogs" / "000.png")
    weights = {"classifier.weights": None}  # a classifier that was trained otherwise
    code, said = run(prefect, "demo", "hdm-reexplain", config=source, changes=weights, limits={"spearman": 0.99})
    assert code == 1, said
    latest = flow_runs(prefect, "hdm-reexplain")[0]
    assert latest["state"]["message"].startswith("drift: ")
    assert "spearman" in latest["state"]["message"]
    (second,) = set(out.iterdir()) - {first}
    assert pq.read_table(second / "drift.parquet").num_rows == 3 * 2  # the image that is another is not compared
    assert (second / "report" / "drift.html").exists()
    alarm = until(lambda: [item for item in flow_runs(prefect, "hdm-alarm") if item["state"]["type"] == "COMPLETED"])[0]
    assert alarm["parameters"]["run"] == second.name
    assert "spearman" in alarm["parameters"]["limits"]

    save = photographs(tmp_path / "more", 5) / "dogs" / "004.png"
    save.rename(images / "dogs" / "004.png")
    code, said = run(prefect, "demo", "hdm-reexplain", config=source, changes=weights)
    assert code == 0, said
    (third,) = set(out.iterdir()) - {first, second}
    taken = pq.read_table(third / "records").to_pydict()
    origin = dict(zip(taken["image_id"], taken["reused_from"], strict=True))
    assert origin == {f"{(n % 2 and 'cats') or 'dogs'}/{n:03d}.png": second.name for n in range(4)} | {"dogs/004.png": None}
    keys = {artifact["key"] for artifact in prefect.post("artifacts/filter", limit=200)}
    assert {f"{third.name.lower()}-{what}" for what in ("progress", "metrics", "summary", "drift", "audit", "input", "output")} <= keys
    assert (third / "audit.parquet").exists()
    assert (third / "report" / "audit.html").exists()


def ray_of(prefect: Prefect) -> list[str]:
    """The command lines of Ray's processes that a flow of this server has started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            command = " ".join(process.cmdline())
            if process.environ().get("PREFECT_HOME") == prefect.env["PREFECT_HOME"] and ("/ray/" in command or "ray::" in command):
                found.append(command)
    return found


@pytest.mark.nightly
def test_the_next_that_is_due_is_turned_away_and_a_cancelled_run_goes_on(prefect: Prefect, tmp_path: Path) -> None:
    images = photographs(tmp_path / "photographs", 4)
    compute = {"workers": 1, "shard_size": 1, "batch_size": 1}
    slow = QUICK | {"hdm": {"preset": "fast", "sizes": [4, 5], "steps": 60, "eta": 0.1}, "compute": compute}
    source, out = str(config(tmp_path, images, **slow)), tmp_path / "out"
    start = ("deployment", "run", "hdm-reexplain/demo", "--param", f"config={json.dumps(source)}")
    assert prefect(*start).returncode == 0
    until(lambda: list(out.glob("*/commits/*.json")))
    assert ray_of(prefect)
    (begun,) = [item for item in flow_runs(prefect, "hdm-reexplain") if item["state"]["type"] == "RUNNING"]

    assert prefect(*start).returncode == 0  # as a schedule would
    (turned_away,) = until(lambda: [item for item in flow_runs(prefect, "hdm-reexplain") if item["state"]["type"] == "CANCELLED"])
    assert "concurrency limit" in turned_away["state"]["message"]

    ended = prefect("flow-run", "cancel", begun["id"])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    until(
        lambda: [item for item in flow_runs(prefect, "hdm-reexplain") if item["id"] == begun["id"] and item["state"]["type"] == "CANCELLED"]
    )
    until(lambda: not ray_of(prefect), 60)
    (run_folder,) = out.iterdir()
    assert len(list(run_folder.glob("commits/*.json"))) < 4
    code, said = run(prefect, "demo", "hdm-reexplain", config=source)
    assert code == 0, said
    assert list(out.iterdir()) == [run_folder]
    assert len(list(run_folder.glob("commits/*.json"))) == 4
