"""Shard leases by compare-and-swap, so that several drivers can share a run."""

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

# Clocks of different machines may differ by this much.
_MAX_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class LeaseHolder:
    """Holder of a lease.

    Attributes:
        tag: of the lease's object; it changes with every renewal.
    """

    holder: str
    tag: str


class LeaseLostError(Exception):
    """Raised when another worker has taken a lease over.

    Results computed under the lost lease must not be committed.
    """


class Lease:
    """A worker's claim on a shard.

    Args:
        seconds: duration of the lease if it is not renewed.
    """

    def __init__(self, storage: Storage, shard: int, seconds: float) -> None:
        self.holder = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._storage = storage
        self._name = lease_name(shard)
        self._seconds = seconds
        self._renewals = 0
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._tag = ""
        self._lock = threading.Lock()

    def acquire(self, stale_tag: str | None) -> LeaseHolder | None:
        """Acquire the lease and return None, or return its holder.

        A lease that is free, or stale, is taken over.

        Args:
            stale_tag: tag of a lease that was not renewed for its whole duration, see `StaleLeaseDetector`.
        """
        body = self._body()
        if self._storage.create(self._name, body) and self._confirm_written(body):
            return None
        data, tag = self._storage.read_tagged(self._name)
        current = json.loads(data)
        if (tag == stale_tag or is_free(current)) and self._compare_and_swap(tag):
            if current["holder"] is not None:
                telemetry.count("hdm_lease_takeovers")
            return None
        return LeaseHolder(current["holder"] or "nobody", tag)

    def renew(self) -> None:
        """Renew the lease, which shows that the holder is alive.

        Raises:
            LeaseLostError: if another worker has taken the lease over.
        """
        with self._lock:
            self._renewals += 1
            if not self._compare_and_swap(self._tag):
                raise LeaseLostError(f"{self._storage.url(self._name)} was taken over by another worker")

    def release(self) -> None:
        """Release the lease for the next worker; a lease that was lost is left alone."""
        try:
            with self._lock:
                self._storage.replace(self._name, to_json({"holder": None}), self._tag)
        except Exception as error:  # whatever an unreachable storage raises: the lease ends by itself
            _log.warning("%s could not be released: %s", self._name, one_line(error))

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew the lease in the background until the context ends, then release it.

        It is renewed four times in its duration.
        """
        ended = threading.Event()

        def renew_until_ended() -> None:
            while not ended.wait(self._seconds / 4):
                try:
                    self.renew()
                except LeaseLostError:
                    return  # the worker's own `renew` before it commits raises it again
                except Exception as error:  # whatever an unreachable storage raises: the next renewal tries again
                    _log.warning("%s could not be renewed: %s", self._name, one_line(error))

        thread = threading.Thread(target=renew_until_ended, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.release()

    def _body(self) -> bytes:
        """Encode the lease.

        `beat` makes the bytes, and so the tag, of every renewal differ.
        """
        until = datetime.now(UTC) + timedelta(seconds=self._seconds)
        times = {"since": self._since, "until": until.isoformat(timespec="seconds")}
        return to_json({"holder": self.holder, "beat": self._renewals, **times})

    def _compare_and_swap(self, tag: str) -> bool:
        """Write the lease if its tag is still this one."""
        body = self._body()
        return self._storage.replace(self._name, body, tag) and self._confirm_written(body)

    def _confirm_written(self, body: bytes) -> bool:
        """Store the tag of the bytes just written, unless others have written since."""
        data, tag = self._storage.read_tagged(self._name)
        if data != body:
            return False
        self._tag = tag
        return True


class StaleLeaseDetector:
    """Detector of stale leases by the local monotonic clock.

    Clock skew between machines does not matter.

    Args:
        seconds: duration of a lease that is not renewed.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._first_seen: dict[int, tuple[str, float]] = {}  # shard -> tag, and the time of its first observation

    def observe(self, shard: int, held: LeaseHolder) -> None:
        """Note the current tag of a shard's lease."""
        if self._first_seen.get(shard, ("", 0.0))[0] != held.tag:
            self._first_seen[shard] = held.tag, time.monotonic()

    def stale_tag(self, shard: int) -> str | None:
        """Return the tag of a lease that has not changed for its whole duration, or None."""
        tag, since = self._first_seen.get(shard, ("", float("inf")))
        return tag if time.monotonic() - since >= self._seconds else None


def lease_name(shard: int) -> str:
    """Return the path of a shard's lease below the run."""
    return f"leases/{shard:06d}.json"


def is_free(lease: dict[str, str | None]) -> bool:
    """Return True if no worker can be holding a lease.

    That is known where it was released, has ended longer ago than clocks may differ, or is of a dead process on this machine.
    """
    holder = lease["holder"]
    if holder is None:
        return True
    host, pid, _ = holder.rsplit(" ", 2)
    if host == socket.gethostname() and not _is_running(int(pid)):
        return True
    return datetime.now(UTC) - datetime.fromisoformat(str(lease["until"])) > _MAX_CLOCK_SKEW


def _is_running(pid: int) -> bool:
    """Return True if this machine has such a process, also of another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
