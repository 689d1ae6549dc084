"""Who works on which shard: leases that only compare-and-swap changes, so that drivers share a run and break nothing."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.errors import one_line
from pipeline.monitoring import telemetry
from pipeline.storage.objects import Storage, to_json

_log = logging.getLogger(__name__)

# Clocks of different machines may be this far apart.
_CLOCKS = timedelta(minutes=5)


@dataclass(frozen=True)
class LeaseHolder:
    """A lease that somebody else has: who, and the tag that changes whenever they renew it."""

    holder: str
    tag: str


class LeaseLostError(Exception):
    """Somebody else took the lease over: what was done under it must not be committed."""


class Lease:
    """A worker's claim on a shard. Renewed in the background while the context lasts, then given back."""

    def __init__(self, storage: Storage, shard: int, seconds: float) -> None:
        self.holder = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._storage = storage
        self._name = lease_name(shard)
        self._seconds = seconds
        self._beat = 0
        self._tag = ""
        self._turn = threading.Lock()

    def acquire(self, stale_tag: str | None) -> LeaseHolder | None:
        """Takes the lease, or says who has it.

        One that is free, or whose holder is known to be gone, is taken over.

        Args:
            silent: the tag of a holder who was seen not to renew it for as long as a lease lasts.
        """
        body = self._body()
        if self._storage.create(self._name, body) and self._own(body):
            return None
        data, tag = self._storage.read_tagged(self._name)
        there = json.loads(data)
        if (tag == stale_tag or is_free(there)) and self._swap(tag):
            if there["holder"] is not None:
                telemetry.count("hdm_lease_takeovers")
            return None
        return LeaseHolder(there["holder"] or "nobody", tag)

    def renew(self) -> None:
        """Shows that the holder is alive, and that the lease is still theirs.

        Raises:
            LeaseLostError: if somebody else has taken it over.
        """
        with self._turn:
            self._beat += 1
            if not self._swap(self._tag):
                raise LeaseLostError(f"{self._storage.url(self._name)} was taken over by another worker")

    def release(self) -> None:
        """Leaves the lease to whoever comes next; nothing happens if it was lost."""
        try:
            with self._turn:
                self._storage.replace(self._name, to_json({"holder": None}), self._tag)
        except Exception as error:  # as above; it ends by itself
            _log.warning("%s could not be given back: %s", self._name, one_line(error))

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renews the lease in time until the context ends."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._seconds / 4):
                try:
                    self.renew()
                except LeaseLostError:
                    return  # the worker's own `renew` before it commits tells
                except Exception as error:  # whatever a storage that is away raises: the next beat tries again
                    _log.warning("%s could not be renewed: %s", self._name, one_line(error))

        thread = threading.Thread(target=beat, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.release()

    def _body(self) -> bytes:
        until = datetime.now(UTC) + timedelta(seconds=self._seconds)
        return to_json({"holder": self.holder, "beat": self._beat, "until": until.isoformat(timespec="seconds")})

    def _swap(self, tag: str) -> bool:
        body = self._body()
        return self._storage.replace(self._name, body, tag) and self._own(body)

    def _own(self, body: bytes) -> bool:
        """Learns the tag of what was just written, unless somebody else has written since."""
        data, tag = self._storage.read_tagged(self._name)
        if data != body:
            return False
        self._tag = tag
        return True


class StaleLeaseDetector:
    """How long others' leases have not changed, by this process's own clock: no other clock has to be right.

    Args:
        seconds: how long a lease lasts that nobody renews.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[int, tuple[str, float]] = {}

    def observe(self, shard: int, held: LeaseHolder) -> None:
        """Notes how a lease was found."""
        if self._seen.get(shard, ("", 0.0))[0] != held.tag:
            self._seen[shard] = held.tag, time.monotonic()

    def stale_tag(self, shard: int) -> str | None:
        """The tag of a lease that has not changed for as long as it lasts, or None."""
        tag, since = self._seen.get(shard, ("", float("inf")))
        return tag if time.monotonic() - since >= self._seconds else None


def lease_name(shard: int) -> str:
    """A lease's object below the run."""
    return f"leases/{shard:06d}.json"


def is_free(lease: dict[str, str | None]) -> bool:
    """Whether nobody has a lease, as far as can be told at once: it was given back, ended long ago, or its process is dead."""
    holder = lease["holder"]
    if holder is None:
        return True
    host, process, _ = holder.rsplit(" ", 2)
    if host == socket.gethostname() and not _runs(int(process)):
        return True
    return datetime.now(UTC) - datetime.fromisoformat(str(lease["until"])) > _CLOCKS


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
