"""Ray clusters that simulate several machines.

Each node is a `ray start` with its own host name and mount namespace.
"""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import hdm_core
import pipeline
from tests.support.s3_server import free_ports

_START_S = 90.0

# The driver's code; a node on which it is hidden runs the copy that Ray sends.
CODE = [Path(package.__path__[0]) for package in (hdm_core, pipeline)]


@dataclass
class Machine:
    """A running node."""

    process: subprocess.Popen[bytes]

    def raylet(self) -> int:
        """Return the process id of the node's raylet."""
        return next(pid for pid in family(self.process.pid) if _command(pid).split(b"\0")[0].endswith(b"/raylet"))

    def workers(self) -> list[int]:
        """Return the process ids of the node's actors."""
        return [pid for pid in family(self.process.pid) if _command(pid).startswith(b"ray::Worker")]

    def end(self) -> None:
        """Kill all processes of the node, by process id."""
        for pid in (*family(self.process.pid), self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Machines:
    """A cluster: a head node without CPUs, and nodes that join and leave.

    Attributes:
        address: HOST:PORT of the head.
        dashboard: URL to which jobs are submitted.
    """

    address: str
    dashboard: str
    folder: Path
    environment: Mapping[str, str]
    running: list[Machine]

    def join(self, name: str, hidden: Sequence[Path] = (), **resources: float) -> Machine:
        """Start a node and wait until it has joined the cluster.

        Args:
            name: host name of the node.
            hidden: folders that are empty on the node.
            resources: such as num_cpus=1, num_gpus=1; GPUs need not exist, Ray only counts them.
        """
        apart = [f"hostname {name}", *(f"mount -t tmpfs tmpfs {shlex.quote(str(folder))}" for folder in hidden)]
        flags = [f"--{key.replace('_', '-')}={value:g}" for key, value in resources.items()]
        machine = self._start(name, [f"--address={self.address}", *flags], apart)
        _wait(machine, self.folder / f"{name}.log")
        return machine

    def _start(self, name: str, flags: Sequence[str], apart: Sequence[str] = ()) -> Machine:
        (agent,) = free_ports(1)  # by default every Ray of this machine asks for 52365, and only the first of them takes jobs
        ray = shlex.join([str(Path(sys.executable).with_name("ray")), "start", "--block", f"--dashboard-agent-listen-port={agent}", *flags])
        command = ["unshare", "--mount", "--uts", "sh", "-ec", "\n".join([*apart, f"exec {ray}"])] if apart else ["sh", "-c", f"exec {ray}"]
        with (self.folder / f"{name}.log").open("wb") as log:
            machine = Machine(subprocess.Popen(command, cwd=self.folder, env=dict(self.environment), stdout=log, stderr=log))
        self.running.append(machine)
        return machine


@contextmanager
def machines(environment: Mapping[str, str]) -> Iterator[Machines]:
    """Start a head node; stop it and all remaining nodes at the end.

    Args:
        environment: additional variables of the nodes; drivers need all of `Machines.environment`.
    """
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "--uts", "true"], check=False).returncode:
        pytest.skip("simulated machines need namespaces, which cannot be created here")
    with tempfile.TemporaryDirectory(prefix="machines") as folder:
        gcs, page = free_ports(2)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name != "PYTHONPATH"}
        ray = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_gcs_rpc_server_connect_timeout_s": "20",  # a loaded machine: Ray's own is 5
        }
        cluster = Machines(
            f"127.0.0.1:{gcs}",
            f"http://127.0.0.1:{page}",
            Path(folder),
            kept | environment | ray,
            [],
        )
        flags = [f"--port={gcs}", f"--temp-dir={folder}/ray", "--num-cpus=0", "--include-dashboard=true", f"--dashboard-port={page}"]
        try:
            _wait(cluster._start("head", ["--head", *flags]), Path(folder) / "head.log")
            yield cluster
        finally:
            for machine in reversed(cluster.running):
                machine.end()


def family(process: int) -> list[int]:
    """Return the process ids of all descendants of a process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for member in found:  # the list grows during the iteration
        found += [child for child, parent in parents.items() if parent == member]
    return found[1:]


def _command(process: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def _wait(machine: Machine, log: Path) -> None:
    """Wait until a node reports that it has started.

    Raises:
        RuntimeError: if the node ends or does not start in time.
    """
    end = time.monotonic() + _START_S
    while time.monotonic() < end and machine.process.poll() is None:
        if "Ray runtime started" in log.read_text(errors="replace"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"a node did not start: {log.read_text(errors='replace')[-2000:]}")
