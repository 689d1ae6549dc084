"""The runs of one configuration, one after another: NAME, NAME-2026-11-30T030000 and so on below the same output."""

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
    """What the series' next run is called: the name and the time in UTC."""
    return f"{name}-{now.astimezone(UTC):%Y-%m-%dT%H%M%S}"


def previous_runs(config: RunConfig) -> list[RunStore]:
    """The series' runs that can be compared with, the newest first: back to the last that is finished, and that one.

    A run of another schema version is left out, with a line in the log.

    Raises:
        InputError: if the output's protocol is unknown.
    """
    output = Storage.of(config.output, "", config.storage)
    member = re.compile(re.escape(config.name) + f"({_STAMP})?")
    found = []
    for name in sorted(filter(member.fullmatch, output.names("")), reverse=True):
        try:
            store = RunStore.open(output.url(name), config.storage)
        except InputError:  # a folder that only looks like one
            continue
        if (run := comparable(store, config.compute.storage_timeout)) is None:
            continue
        found.append(run)
        if is_finished(run):
            break
    return found


def comparable(store: RunStore, patience: float) -> RunStore | None:
    """The run with the patience of `Storage`, or None if another version wrote it, which is said."""
    if (version := store.metadata().get("schema_version")) != SCHEMA_VERSION:
        _log.warning("%s has schema version %s, this is %s: nothing is taken from it", store.url, version, SCHEMA_VERSION)
        return None
    return RunStore(Storage(store.url, store.storage.options, patience))


def is_finished(store: RunStore) -> bool:
    """Whether all shards of a run are committed."""
    return len(store.done()) == int(store.metadata()["shards"])
