"""Series of runs of one configuration: NAME, NAME-2026-11-30T030000, ..."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime

from pipeline.config.schema import RunConfig
from pipeline.errors import InputError
from pipeline.runs import RunStore
from pipeline.runs.records import SCHEMA_VERSION
from pipeline.storage.objects import Storage

_log = logging.getLogger(__name__)

_STAMP = r"-\d{4}-\d{2}-\d{2}T\d{6}"


def next_name(name: str, now: datetime) -> str:
    """Return the name of the series' next run: the name and the time in UTC."""
    return f"{name}-{now.astimezone(UTC):%Y-%m-%dT%H%M%S}"


def previous_runs(config: RunConfig) -> list[RunStore]:
    """List the series' comparable runs from the newest to the last finished one.

    A run of another schema version is left out, with a line in the log.

    Raises:
        InputError: if the output's protocol is unknown.
    """
    output = Storage.of(config.output, "", config.storage)
    member = re.compile(re.escape(config.name) + f"({_STAMP})?")
    runs = []
    for name in sorted(filter(member.fullmatch, output.names("")), reverse=True):
        try:
            store = RunStore.open(output.url(name), config.storage)
        except InputError:  # a folder that is only named like a run
            continue
        if (run := comparable(store, config.compute.storage_timeout)) is None:
            continue
        runs.append(run)
        if is_finished(run):
            break
    return runs


def comparable(store: RunStore, timeout: float) -> RunStore | None:
    """Return the run with this storage timeout, if its schema version is this one.

    Otherwise None, with a warning in the log.
    """
    if (version := store.metadata().get("schema_version")) != SCHEMA_VERSION:
        _log.warning("%s has schema version %s, this is %s: nothing is reused from it", store.url, version, SCHEMA_VERSION)
        return None
    return RunStore(Storage(store.url, store.storage.options, timeout))


def is_finished(store: RunStore) -> bool:
    """Return True if all shards of a run are committed."""
    return len(store.done()) == int(store.metadata()["shards"])
