"""Network whose loading makes the process's runs leave a trace of their shards, and commit under a test's control."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.execution import worker as workers
from pipeline.explain.shard import explain_shard
from pipeline.runs import RunStore
from tests.support.failing_device import in_actor
from tests.support.tiny_networks import smooth

SECONDS = 60.0


def network(folder: str, wait: bool = False, kill: int | None = None, seconds: float = 0.0) -> nn.Module:
    """Return a small network.

    Args:
        folder: of the trace, one empty file per event: computing-3 when the computation of shard 3 begins, computed-3, writing-3,
            committed-3.
        wait: let the commit of a shard wait until the computation of the next one has begun; of all but the last of four shards.
        kill: a shard; the first process that commits it is killed once it computes the next one.
        seconds: additional duration of each commit.
    """
    trace = Path(folder)
    write = RunStore.write_shard

    def traced_explain(classifier: Any, config: Any, shard: Any, *arguments: Any) -> Any:
        (trace / f"computing-{shard.index}").touch()
        result = explain_shard(classifier, config, shard, *arguments)
        (trace / f"computed-{shard.index}").touch()
        return result

    def traced_write(store: RunStore, shard: Any, *arguments: Any) -> bool:
        (trace / f"writing-{shard.index}").touch()
        if (wait and shard.index < 3) or shard.index == kill:
            await_file(trace / f"computing-{shard.index + 1}")
        if shard.index == kill and not (trace / "killed").exists():
            (trace / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        written = write(store, shard, *arguments)
        (trace / f"committed-{shard.index}").touch()
        return written

    if in_actor():  # not in the driver's process, which only plans
        workers.explain_shard = traced_explain  # type: ignore[attr-defined]
        RunStore.write_shard = traced_write  # type: ignore[assignment,method-assign]
    return smooth(3)


def await_file(path: Path) -> None:
    """Wait for a file.

    Raises:
        TimeoutError: if it does not come.
    """
    end = time.monotonic() + SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(path.name)
        time.sleep(0.02)
