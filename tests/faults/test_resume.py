"""A killed driver loses nothing: the next one ends with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.runs import RunStore
from tests.support.fault_runs import IMAGES, SHARDS, contents, until, written
from tests.support.small_run import command, hdm

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_killed_and_resumed_is_the_same_bytes(folder: Path, undisturbed: dict[str, Any]) -> None:
    file = written(folder, "killed")
    run = folder / "out" / "killed"

    def committed() -> int:
        return len(list((run / "commits").glob("*.json")))

    with subprocess.Popen(command("run", file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as driver:
        until(lambda: committed() or driver.poll() is not None)
        os.kill(driver.pid, signal.SIGKILL)
    assert driver.returncode == -signal.SIGKILL, "the run must not be over before it is killed"
    before = committed()
    assert 1 <= before < SHARDS

    resumed = hdm("run", file, "--json")
    assert resumed.returncode == 0, resumed.stderr
    facts = json.loads(resumed.stdout)
    assert facts["resumed"] >= before
    assert f"of {SHARDS} shards were done before" in resumed.stderr
    assert facts["statuses"] == {"ok": IMAGES}, "flat maps would be the same bytes whatever happened"

    assert contents(RunStore.open(str(run))) == undisturbed
    whole = folder / "out" / "undisturbed"
    assert (run / "images.parquet").read_bytes() == (whole / "images.parquet").read_bytes()
    assert pq.read_table(run / "tables.parquet") == pq.read_table(whole / "tables.parquet")
