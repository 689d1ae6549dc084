"""hdm status: each shard's state, from commits, leases and failures."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.runs.leases import Lease, lease_name
from pipeline.runs.shard_states import shard_states, write_failure
from pipeline.storage.objects import to_json
from tests.pipeline.conftest import Ended
from tests.support.report_runs import stored_run, unreadable


def test_status_says_which_shard_is_done_at_work_stale_failed_or_open(tmp_path: Path, here: Callable[..., Ended]) -> None:
    store = stored_run(tmp_path, images=7, committed=2, changes=unreadable(1, error="the file\nis <b>empty</b>"))
    lease = Lease(store.storage, 2, 60)
    assert lease.acquire(None) is None
    ended = (datetime.now(UTC) - timedelta(seconds=5)).isoformat(timespec="seconds")
    store.storage.write(lease_name(3), to_json({"holder": "another host 7 0f", "beat": 4, "until": ended}))  # of an earlier version
    Lease(store.storage, 4, 60).acquire(None)
    store.storage.write(lease_name(4), to_json({"holder": None}))
    write_failure(store, 5, "the device failed")
    write_failure(store, 0, "it was tried again since")
    states = shard_states(store)
    assert [state.state for state in states] == ["done", "failed", "at work", "stale", "open", "failed", "open"]
    assert [state.rows for state in states[:2]] == [(0, 1), (1, 2)]
    assert (states[0].error, states[1].failed_images, states[5].error) == (None, 1, "the device failed")
    assert states[2].holder == f"{socket.gethostname()}, process {os.getpid()}"
    assert datetime.now(UTC) - datetime.fromisoformat(str(states[2].since)) < timedelta(seconds=60)
    assert (states[3].holder, states[3].since, states[3].until) == ("another host, process 7", None, ended)

    facts = json.loads(here("status", store.url, "--json").out)
    assert (facts["shards"], facts["shards_done"], len(facts["shard_states"])) == (7, 2, 7)
    assert facts["shard_states"][1]["rows"] == [1, 2]
    text = here("status", store.url).out
    assert "2 of 7 (at work)" in text
    assert "the device failed" in text
    lines = [line.split()[2] for line in text.splitlines() if line.split()[:1] and line.split()[0] in "123456" and len(line.split()) > 2]
    assert lines[0] == "at", "those at work come first"


def test_watch_follows_a_run_until_all_shards_are_done(tmp_path: Path, here: Callable[..., Ended]) -> None:
    store = stored_run(tmp_path, images=2)
    ended = here("status", store.url, "--watch")
    assert (ended.code, ended.err) == (0, "2 shards: 2 done\n")
    assert "2 of 2 (done)" in ended.out
