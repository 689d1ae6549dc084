"""`hdm run demo` by two workers that share a GPU: `make gpu-pipeline`.

It needs the whole environment of the project. Without a GPU the workers use the CPU, and with --tiny small images, to try the checks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hdm_core.device import device_name
from infra.gpu.facts import pick_test_device
from infra.gpu.session import Facts, Section, Session, say
from infra.gpu.sizes import FULL

# One image per shard, so that there is work left when a worker is killed, and a lease of it that ends soon.
_CHANGES = {"compute.workers": 2, "compute.gpus_per_worker": 0.5, "compute.shard_size": 1, "compute.lease_seconds": 5}
_TINY = {"dataset.limit": 4, "classifier.resize": 72, "classifier.crop": 64, "hdm.sizes": "[4, 5]", "hdm.steps": 4, "hdm.mix_steps": 2}
_POLL_S = 0.02


def main() -> int:
    """Run the demo three times, and return 1 if it is not as it must be."""
    parser = argparse.ArgumentParser("infra.gpu.demo_run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=290.0, help="time for all runs; afterwards the JSON is printed as it is")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-pipeline"), help="folder of result.json, the logs and the runs")
    parser.add_argument("--tiny", action="store_true", help="few small images and few steps")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    session = Session(out, options.seconds, FULL)
    changes = _CHANGES | (_TINY if options.tiny else {})
    first, second, disturbed = (partial(check_run, changes, name) for name in ("first", "second", "disturbed"))
    session.run(
        [
            Section("first", first, options.seconds),
            Section("second", second, options.seconds),
            Section("disturbed", partial(disturbed, disturb=True), options.seconds),
        ]
    )
    checks = verdicts(session.result, device_name(pick_test_device()))
    session.result["checks"] = checks
    session.save()
    for text, holds in checks.items():
        say(f"{'holds' if holds else 'BROKEN':6} {text}")
    say(session.line())
    return int(not all(checks.values()))


def check_run(changes: dict[str, object], name: str, session: Session, facts: Facts, disturb: bool = False) -> None:
    """Run the demo from scratch, or, to disturb it, kill a worker and run it again.

    Args:
        changes: of the configuration.
        name: of the folder of the run, and of its log.
    """
    folder = session.out / name
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: give an --out without the runs of an earlier call")
    facts |= run_demo(folder, changes, session, disturb)
    if disturb:
        facts["again"] = run_demo(folder, changes, session)["resumed"]
    run = folder / "demo"
    records = pq.read_table(run / "records", columns=["status", "device"])
    facts["records"] = {column: dict(Counter(records[column].to_pylist())) for column in records.column_names}
    facts["maps"] = digest_of_maps(run)


def run_demo(folder: Path, changes: dict[str, object], session: Session, disturb: bool = False) -> Facts:
    """Run `hdm run demo` to its end, and return what it printed.

    Args:
        folder: the run is in its folder `demo`.
        disturb: kill the first worker that holds a lease.
    """
    options = [part for key, value in {**changes, "output": folder}.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "run", "demo", "--json", *options]
    log = session.out / f"{folder.name}.log"
    with log.open("a") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        try:
            killed = kill_a_worker(folder / "demo" / "leases", process, session) if disturb else None
            output, _ = process.communicate(timeout=session.left())
        finally:
            process.kill()
    if process.returncode != 0:
        last = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"hdm run demo ended with {process.returncode}: {' / '.join(last)}")
    printed: dict[str, Any] = json.loads(output.splitlines()[-1])  # before it Ray prints that a worker was lost
    facts = {key: printed[key] for key in ("images", "shards", "resumed", "seconds", "statuses")}
    return facts | ({} if killed is None else {"killed": killed})


def kill_a_worker(leases: Path, driver: subprocess.Popen[str], session: Session) -> int:
    """Kill the first worker that holds a lease; return its process id."""
    while driver.poll() is None and session.left():
        for path in leases.glob("*.json"):
            process = process_of(path)
            if process is not None:
                os.kill(process, signal.SIGKILL)
                return process
        time.sleep(_POLL_S)
    raise RuntimeError("no worker held a lease before the run was over")


def process_of(lease: Path) -> int | None:
    """Return the id of the process that holds a lease; None if none does."""
    try:
        holder = json.loads(lease.read_text())["holder"]
    except (json.JSONDecodeError, FileNotFoundError):  # it is being written
        return None
    return None if holder is None else int(holder.rsplit(" ", 2)[1])  # host, process id, and a number


def digest_of_maps(run: Path) -> str:
    """Return a digest of all objects of the maps, by the commits' own digests."""
    commits = [json.loads(path.read_text())["sha256"] for path in (run / "commits").glob("*.json")]
    objects = {name: digest for commit in commits for name, digest in commit.items() if name.startswith("maps.zarr/")}
    if not objects:
        raise RuntimeError(f"{run} has no maps")
    return hashlib.sha256(json.dumps(sorted(objects.items())).encode()).hexdigest()


def verdicts(result: dict[str, Any], device: str) -> dict[str, bool]:
    """Return each promise with its truth.

    Args:
        device: that all records must name.
    """
    first, second, disturbed = (result.get(name) or {} for name in ("first", "second", "disturbed"))
    runs = [run if isinstance(run, dict) else {} for run in (first, second, disturbed)]
    records = [run.get("records", {}) for run in runs]
    maps = [run.get("maps") for run in runs]
    return {
        "all statuses are ok": all(set(each.get("status", {})) == {"ok"} for each in records),
        f"all records name {device}": all(set(each.get("device", {})) == {device} for each in records),
        "a second run from scratch has the same bytes of maps": maps[0] is not None and maps[0] == maps[1],
        "so has a run in which a worker was killed": "killed" in runs[2] and maps[0] is not None and maps[0] == maps[2],
        "and running it again finds all shards done": "again" in runs[2] and runs[2]["again"] == runs[2]["shards"],
        "there was no error": not result["errors"],
    }


if __name__ == "__main__":
    sys.exit(main())
