"""`make cluster-demo` for real: it explains, and leaves no process and no file behind, also after Ctrl-C."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from infra.cluster_demo import INTERRUPTS, deferred_interrupts
from tests.support.paths import ROOT

COMMAND = [sys.executable, "-m", "infra.cluster_demo"]

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not shutil.which("postgres") and not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")),
        reason="Postgres is missing: Debian's package postgresql is not installed",
    ),
]


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """Set an environment variable by which the processes of the demo are found."""
    token = uuid.uuid4().hex
    monkeypatch.setenv("HDM_CLUSTER_DEMO_TEST", token)
    return token


@pytest.mark.parametrize("number", INTERRUPTS)
def test_a_signal_while_a_process_is_started_waits_until_it_is_registered(number: int) -> None:
    reached: list[str] = []

    def start() -> None:
        with deferred_interrupts():
            signal.raise_signal(number)
            reached.append("registered")

    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert reached == ["registered"]


def left_over(mark: str) -> list[str]:
    """Return the command lines of the demo's processes that are still running."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != psutil.Process().pid and process.environ().get("HDM_CLUSTER_DEMO_TEST") == mark:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue  # it has ended in the meantime
    return found


def folders() -> set[Path]:
    return set(Path("/tmp").glob("demo-*"))


def test_a_deployment_runs_on_the_cluster_and_all_of_it_goes_down(mark: str) -> None:
    before = folders()
    ended = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Flow run finished successfully" in ended.stdout
    assert "insertion" in ended.stdout.lower(), "the table of metrics is shown"
    runs = re.search(r"flow runs in Postgres: (\d+)", ended.stdout)
    assert runs is not None
    assert int(runs[1]) >= 2, "the run and its tables; schedules may have made more"
    by_node = dict(re.findall(r"(127\.0\.0\.[234]) (\d+)", ended.stdout.partition("images by node:")[2]))
    assert by_node["127.0.0.2"] == "0", "the head has no CPU"
    assert int(by_node["127.0.0.3"]) + int(by_node["127.0.0.4"]) == 4
    assert left_over(mark) == []
    assert folders() == before


def test_ctrl_c_takes_everything_down(mark: str) -> None:
    before = folders()
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "ray 127.0.0.2: ready" in line:
                break
        assert any("postgres" in command for command in left_over(mark))
        assert any("raylet" in command for command in left_over(mark))
        demo.send_signal(signal.SIGINT)
        output = demo.stdout.read()
    assert demo.returncode == 130, output
    assert "all processes are stopped" in output
    assert left_over(mark) == []
    assert folders() == before
