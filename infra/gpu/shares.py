"""Section: several processes on one device, each with its share of the memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from infra.gpu.session import Facts, Session

ROOT = Path(__file__).parents[2]


def check_shares(session: Session, facts: Facts) -> None:
    """Store the images per second of all processes together, for each number of them."""
    session.each(facts, session.sizes.processes, lambda count: shared(session, count))


def shared(session: Session, count: int) -> Facts:
    """Explain in `count` processes at the same time."""
    command = [sys.executable, "-m", "infra.gpu.share_worker", "--share", str(1 / count), *(["--tiny"] if session.sizes.tiny else [])]
    with ExitStack() as stack:
        log = stack.enter_context((session.out / "shares.log").open("a"))
        workers = [
            stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True))
            for _ in range(count)
        ]
        for worker in workers:
            stack.callback(worker.kill)
        # A worker that hangs holds its pipe open: killing it ends the wait for its line.
        killer = threading.Timer(session.left(), _kill, (workers,))
        killer.start()
        stack.callback(killer.cancel)
        for worker in workers:
            _expect(worker, "ready")
        for pipe in [worker.stdin for worker in workers if worker.stdin is not None]:
            pipe.write("\n")
            pipe.flush()
        results = [json.loads(_expect(worker, "{")) for worker in workers]
    each = [result["images"] / result["seconds"] for result in results]
    return {"images_per_s": sum(each), "each": each}


def _kill(workers: list[subprocess.Popen[str]]) -> None:
    for worker in workers:
        worker.kill()


def _expect(worker: subprocess.Popen[str], start: str) -> str:
    """Read a worker's lines up to one that begins so."""
    for line in worker.stdout or ():
        if line.startswith(start):
            return line
    raise RuntimeError(f"a process ended with {worker.wait()} before it printed {start!r}: see shares.log")
