"""A Prefect worker that is killed with the flow that it runs: the next flow run finishes the run, and the dead one is found out."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.prefect_server import Prefect
from tests.support.ray_nodes import family
from tests.support.small_run import config, files, hdm, photographs

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_a_worker_that_is_killed_with_its_flow(prefect: Prefect, tmp_path: Path) -> None:
    images = photographs(tmp_path / "photographs", 8)
    broken, whole = (config(tmp_path, images, name=name, methods=["hdm", "grad_cam"]) for name in ("broken", "whole"))
    assert hdm("run", whole).returncode == 0

    order = ("deployment", "run", "hdm/demo", "--param", f"config={json.dumps(str(broken))}")
    assert prefect(*order).returncode == 0
    run, end = tmp_path / "out" / "broken", time.monotonic() + 180
    while not list((run / "commits").glob("*.json")):
        assert time.monotonic() < end
        time.sleep(0.05)
    worker = prefect.workers[-1]
    for process in (worker.pid, *family(worker.pid)):
        with suppress(ProcessLookupError):  # Ray's processes go with their driver
            os.kill(process, signal.SIGKILL)
    worker.wait()
    killed = time.monotonic()
    assert len(list((run / "commits").glob("*.json"))) < 4
    (dead,) = prefect.post("flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING"]}}})

    prefect.start_worker()
    done = prefect(*order, "--watch")  # the deployment takes one run at a time: it waits until the dead one has left its place
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - killed < 240, "the place would be free after five minutes in any case"
    (found,) = prefect.post("flow_runs/filter", flow_runs={"id": {"any_": [dead["id"]]}})
    assert found["state"]["type"] == "CRASHED"
    assert "no heartbeat" in found["state"]["message"]
    undisturbed = tmp_path / "out" / "whole"
    assert files(run, "maps.zarr", "images", "curves") == files(undisturbed, "maps.zarr", "images", "curves")
    for part in (undisturbed / "records").iterdir():
        left, right = (
            pq.read_table(folder / "records" / part.name).drop_columns(["seconds", "device", "run"]) for folder in (run, undisturbed)
        )
        assert left == right
