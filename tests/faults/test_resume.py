"""A driver that is killed in mid-run loses nothing: the next one ends with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.small_run import command, config, files, hdm, photographs

pytestmark = pytest.mark.faults

# What a run's records may differ in: how long it took, and where.
_CIRCUMSTANCES = ["seconds", "device", "run"]


def test_killed_and_resumed_is_the_same_bytes(tmp_path: Path) -> None:
    images = photographs(tmp_path / "photographs", 12)
    whole, broken = config(tmp_path, images, name="whole"), config(tmp_path, images, name="broken")
    assert hdm("run", whole).returncode == 0

    run = tmp_path / "out" / "broken"
    with subprocess.Popen(command("run", broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as driver:
        deadline = time.monotonic() + 120
        while len(list((run / "commits").glob("*.json"))) < 2:
            assert driver.poll() is None, "the run must not be over before it is killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
    committed = len(list((run / "commits").glob("*.json")))
    assert 2 <= committed < 6

    resumed = hdm("run", broken, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["resumed"] >= committed
    assert "of 6 shards were done before" in resumed.stderr

    assert json.loads(resumed.stdout)["statuses"].keys() == {"ok"}, "flat maps would be the same bytes whatever happened"
    undisturbed = tmp_path / "out" / "whole"
    assert files(run, "maps.zarr") == files(undisturbed, "maps.zarr")
    assert files(run, "images", "curves") == files(undisturbed, "images", "curves")
    assert (run / "images.parquet").read_bytes() == (undisturbed / "images.parquet").read_bytes()
    assert pq.read_table(run / "tables.parquet") == pq.read_table(undisturbed / "tables.parquet")
    for part in (undisturbed / "records").iterdir():
        left, right = (pq.read_table(folder / "records" / part.name).drop_columns(_CIRCUMSTANCES) for folder in (run, undisturbed))
        assert left == right
