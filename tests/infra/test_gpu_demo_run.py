"""`make gpu-pipeline` by workers of a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.gpu.demo_run import process_of, verdicts
from infra.gpu.session import NO_TIME
from tests.support.paths import ROOT


@pytest.mark.server
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_demo_is_run_killed_and_resumed_by_workers_of_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.gpu.demo_run", "--tiny", "--out", str(tmp_path), "--seconds", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)
    result = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(result["checks"].values()) == {True}
    assert result["first"]["records"]["device"] == {"cpu": 8}
    assert result["disturbed"]["killed"] > 0
    assert result["disturbed"]["again"] == result["disturbed"]["shards"] == 4


def test_each_promise_of_the_runs_can_be_broken() -> None:
    run = {"records": {"status": {"ok": 4}, "device": {"H100": 4}}, "maps": "a", "shards": 2}
    result = {"errors": [], "first": run, "second": run, "disturbed": run | {"killed": 7, "again": 2}}
    assert set(verdicts(result, "H100").values()) == {True}

    def broken(**changes: Any) -> list[bool]:
        return [holds for holds in verdicts(result | changes, "H100").values() if not holds]

    assert len(broken(first=run | {"records": {"status": {"ok": 3, "failed": 1}, "device": {"H100": 4}}})) == 1
    assert len(broken(second=run | {"records": {"status": {"ok": 4}, "device": {"cpu": 4}}})) == 1
    assert len(broken(second=run | {"maps": "b"})) == 1
    assert len(broken(disturbed=run | {"killed": 7, "again": 2, "maps": "b"})) == 1
    assert len(broken(disturbed=run | {"killed": 7, "again": 1})) == 1
    assert len(broken(errors=["second: RuntimeError"])) == 1
    assert not any(verdicts({"errors": ["first: x"], "first": NO_TIME}, "H100").values())


def test_the_process_of_a_lease_is_read(tmp_path: Path) -> None:
    lease = tmp_path / "000000.json"
    assert process_of(lease) is None
    for text, process in (("", None), ('{"holder": null}', None), ('{"holder": "a host 42 abc"}', 42)):
        lease.write_text(text)
        assert process_of(lease) == process
