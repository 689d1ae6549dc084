"""A Prefect worker killed with its flow: the next flow run finishes the run, the dead one is detected."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs import RunStore
from tests.support.fault_runs import SHARDS, contents, until, written
from tests.support.prefect_server import Prefect
from tests.support.ray_nodes import family

# 8 minutes, most of them for the server to miss a heartbeat.
pytestmark = [pytest.mark.faults, pytest.mark.nightly, pytest.mark.timeout(600)]


def test_a_worker_that_is_killed_with_its_flow(prefect: Prefect, folder: Path, undisturbed: dict[str, Any]) -> None:
    order = ("deployment", "run", "hdm/demo", "--param", f"config={json.dumps(str(written(folder, 'broken')))}")
    assert prefect(*order).returncode == 0
    run = folder / "out" / "broken"
    until(lambda: list((run / "commits").glob("*.json")), 180)
    worker = prefect.workers[-1]
    for process in (worker.pid, *family(worker.pid)):
        with suppress(ProcessLookupError):  # Ray's processes end with their driver
            os.kill(process, signal.SIGKILL)
    worker.wait()
    killed = time.monotonic()
    assert len(list((run / "commits").glob("*.json"))) < SHARDS
    (dead,) = prefect.post("flow_runs/filter", flow_runs={"state": {"type": {"any_": ["RUNNING"]}}})

    prefect.start_worker()
    done = prefect(
        *order, "--watch"
    )  # the deployment runs one flow at a time: this one waits until the dead one has left the concurrency slot
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - killed < 240, "the slot would be free after five minutes in any case"
    (found,) = prefect.post("flow_runs/filter", flow_runs={"id": {"any_": [dead["id"]]}})
    assert found["state"]["type"] == "CRASHED"
    assert "no heartbeat" in found["state"]["message"]
    assert contents(RunStore.open(str(run))) == undisturbed
