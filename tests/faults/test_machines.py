"""Runs on clusters of machines without a shared disk, which join and leave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import load_config
from pipeline.runs import RunStore
from pipeline.runs.verify import verify
from tests.support.fault_runs import SHARDS, contents, driver, holders, until, written
from tests.support.paths import COUNTED_GPUS, ROOT
from tests.support.ray_nodes import CODE, Machine, Machines, machines
from tests.support.s3_server import S3

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(s3_server: S3) -> Iterator[Machines]:
    """A cluster with a head node; the GPUs of its machines exist only in Ray's accounting."""
    with machines(s3_server.environment | {"PYTHONPATH": os.pathsep.join([str(COUNTED_GPUS), str(ROOT)])}) as started:
        yield started


def placed(folder: Path, cluster: Machines, s3: S3, name: str, gpus: float) -> Path:
    """Write a configuration whose photographs and output are in the object store."""
    s3.upload(folder / "photographs")
    return written(
        folder,
        name,
        dataset={"kind": "folder", "root": s3.url},
        output=f"{s3.folder().url}",
        storage=s3.storage,
        compute={"workers": "auto", "gpus_per_worker": gpus, "ray_address": cluster.address},
    )


def stop(machine: Machine) -> None:
    """Stop the workers of a machine that have started."""
    for worker in machine.workers():
        os.kill(worker, signal.SIGSTOP)


def hosts(store: RunStore) -> set[str]:
    """Return the machines that have committed shards."""
    return {store.storage.read_json(f"commits/{name}")["holder"].split(" ")[0] for name in store.storage.names("commits")}


def test_a_machine_dies_and_another_joins(folder: Path, undisturbed: dict[str, Any], cluster: Machines, s3: S3) -> None:
    """Two machines with two workers each: one dies, the other is stopped meanwhile, so that a third must take over."""
    staying, dying = (cluster.join(name, hidden=[*CODE, folder], num_cpus=1, num_gpus=1) for name in ("staying", "dying"))
    file = placed(folder, cluster, s3, "machines", 0.5)
    with driver(file, **cluster.environment) as process:
        store = RunStore.from_config(load_config(str(file)))
        until(lambda: {host for host, _ in holders(store).values()} == {"staying", "dying"})
        stop(staying)
        os.kill(dying.raylet(), signal.SIGKILL)
        until(lambda: len(staying.workers()) == 2)
        stop(staying)  # also a worker that started late: it would do all shards before the third machine is there
        cluster.join("joining", hidden=[*CODE, folder], num_cpus=1, num_gpus=1)

        def taken_over() -> bool:
            assert process.poll() is None, "the run ended without the third machine"
            return "joining" in {host for host, _ in holders(store).values()}

        until(taken_over)
        for worker in staying.workers():
            os.kill(worker, signal.SIGCONT)
        assert process.wait(120) == 0
    assert "joining" in hosts(store)
    assert contents(store) == undisturbed
    assert not verify(store).damaged


def test_a_job_is_submitted(folder: Path, undisturbed: dict[str, Any], cluster: Machines, s3: S3, tmp_path: Path) -> None:
    """`ray job submit` sends the configuration to the cluster, which has everything else that the job needs."""
    cluster.join("quarters", hidden=[*CODE, folder], num_cpus=1, num_gpus=1)
    file = placed(folder, cluster, s3, "job", 0.25)
    shutil.copy(file, tmp_path / "job.yaml")
    bin_ = Path(sys.executable).parent
    command = [bin_ / "ray", "job", "submit", f"--address={cluster.dashboard}", f"--working-dir={tmp_path}", "--"]
    command += [bin_ / "hdm", "run", "job.yaml", "--set", "compute.ray_address=auto", "--json"]

    def submit() -> subprocess.CompletedProcess[str] | None:
        """Submit the job; None until a node's agent is ready, some seconds after the node has joined."""
        done = subprocess.run(command, env=dict(cluster.environment), capture_output=True, text=True, timeout=200)
        return None if "No available agent" in done.stdout + done.stderr else done

    done = until(submit)
    assert done.returncode == 0, done.stdout + done.stderr
    store = RunStore.from_config(load_config(str(file)))
    assert len(store.done()) == SHARDS
    assert contents(store) == undisturbed
