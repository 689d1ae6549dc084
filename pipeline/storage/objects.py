"""Objects below a URL, on a disk or an object store, through fsspec.

Writes are atomic, create-only or compare-and-swap.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from pipeline.errors import InputError, one_line
from pipeline.storage.retry import retry

T = TypeVar("T")


class Storage:
    """Objects below one URL.

    Args:
        url: a local path, file:// or another fsspec URL such as s3://bucket/prefix.
        options: fsspec options of that file system.
        timeout: seconds for which requests to an unreachable, busy or failing server are retried.

    Raises:
        ValueError, ImportError: if fsspec does not know the protocol.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, timeout: float = 10.0) -> None:
        self.timeout = timeout
        self.options = dict(options or {})
        self.fs, root = fsspec.core.url_to_fs(url, **(self.options if "://" in url else {}))
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    @classmethod
    def of(cls, output: str, name: str, options: Mapping[str, Any], timeout: float = 10.0) -> Storage:
        """Return the storage of the folder `name` below an output.

        Raises:
            InputError: if the output's protocol is unknown.
        """
        try:
            return cls(f"{output.removesuffix('/')}/{name}", options, timeout)
        except (ValueError, ImportError) as error:
            raise InputError(f"output {output}: {one_line(error)}") from None

    def __reduce__(self) -> tuple[type[Storage], tuple[str, dict[str, Any], float]]:
        return Storage, (self.url(""), self.options, self.timeout)  # connections of a file system cannot be pickled

    def path(self, name: str) -> str:
        """Return an object's path as the fsspec file system names it."""
        return f"{self.root}/{name}" if name else self.root

    def url(self, name: str) -> str:
        """Return an object's local path or URL, as a user would write it."""
        return self.path(name) if self.local else str(self.fs.unstrip_protocol(self.path(name)))

    def read(self, name: str) -> bytes:
        """Read an object.

        Raises:
            FileNotFoundError: if there is none.
        """
        data: bytes = self._retry(lambda: self.fs.cat_file(self.path(name)))
        return data

    def read_json(self, name: str) -> dict[str, Any]:
        """Read an object that holds JSON."""
        value: dict[str, Any] = json.loads(self.read(name))
        return value

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """Read an object, with the tag of this version or an earlier one for `replace`.

        Raises:
            FileNotFoundError: if there is none.
            NotImplementedError: if the storage has no tags.
        """
        if self.local:
            data = self.read(name)
            return data, _sha256(data)
        # Tag before bytes: if the object changes in between, `replace` refuses the old tag.
        tag = self._retry(lambda: self.fs.info(self.path(name), refresh=True)).get("ETag")
        if tag is None:
            raise NotImplementedError(f"{self.url('')} has no tags to compare and swap by")
        return self.read(name), str(tag)

    def write(self, name: str, data: bytes) -> None:
        """Write an object atomically.

        A reader sees the old bytes or the new ones, never a part of them.
        """
        if self.local:
            temporary = self._temporary(name, data)
            temporary.replace(self.path(name))
        else:
            self._retry(lambda: self.fs.pipe_file(self.path(name), data))

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless it exists.

        Exactly one of several writers gets True, if their data differ.
        """
        if self.local:
            temporary = self._temporary(name, data)
            try:
                os.link(temporary, self.path(name))
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            return True
        return self._conditionally(name, data, mode="create")

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Write an object if it still has this tag.

        Exactly one of several writers gets True, if their data differ.
        """
        if not self.local:
            try:
                return self._conditionally(name, data, IfMatch=tag)
            except FileNotFoundError:  # the answer of some servers if the object was removed
                return False
        # Files have no conditional writes: a lock serialises all replacements in one folder.
        with FileLock(self.path(f"{name.rpartition('/')[0]}/.lock"), timeout=self.timeout):
            if not self.exists(name) or _sha256(self.read(name)) != tag:
                return False
            self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """Remove an object if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self._retry(lambda: self.fs.rm_file(self.path(name)))

    def remove_all(self) -> None:
        """Remove all objects below the URL."""
        self.fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            self._retry(lambda: self.fs.rm(self.root, recursive=True))

    def is_conditional(self) -> bool:
        """Return whether `create` and `replace` are conditional.

        Some servers ignore the condition, so that all writers succeed.
        """
        name = f"leases/.try-{uuid.uuid4().hex}"
        try:
            if not self.create(name, b"first") or self.create(name, b"second"):
                return False
            _, tag = self.read_tagged(name)
            return self.replace(name, b"third", tag) and not self.replace(name, b"fourth", tag)
        except NotImplementedError:
            return False
        finally:
            self.remove(name)

    def exists(self, name: str) -> bool:
        """Return whether an object exists, without fsspec's cache of listings."""
        self.fs.invalidate_cache()
        return bool(self._retry(lambda: self.fs.exists(self.path(name))))

    def names(self, folder: str) -> list[str]:
        """List the names of a folder's objects, sorted, with one request.

        The list is empty if there is no folder.
        """
        self.fs.invalidate_cache()
        try:
            paths = self._retry(lambda: self.fs.ls(self.path(folder), detail=False))
        except FileNotFoundError:
            return []
        names = (path.rpartition("/")[2] for path in paths)
        return sorted(name for name in names if name and not name.startswith(".") and not name.endswith(".tmp"))

    def zarr(self, name: str) -> Store:
        """Open a folder as a Zarr store."""
        if self.local:
            return LocalStore(self.path(name))
        return FsspecStore.from_url(self.url(name), storage_options={**self.options, "asynchronous": True})

    def _conditionally(self, name: str, data: bytes, **condition: str) -> bool:
        try:
            self._retry(lambda: self.fs.pipe_file(self.path(name), data, **condition))
        except OSError as error:
            if not _is_refusal(error):
                raise
            # The answer to a first attempt may have been lost, so that the retry failed on the first attempt's own write.
            try:
                return self.read(name) == data
            except FileNotFoundError:
                return False
        return True

    def _retry(self, work: Callable[[], T]) -> T:
        """Call `work`, with retries on an object store.

        Transient errors are retried for up to `timeout` seconds.
        """
        if self.local:
            return work()
        return retry(work, self.timeout, self.url(""))

    def _temporary(self, name: str, data: bytes) -> Path:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
        except OSError:  # a full disk
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def to_json(value: Any) -> bytes:
    """Encode a value as indented JSON with sorted keys: equal values give equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _is_refusal(error: OSError) -> bool:
    """Return whether an error is an object store's refusal of a write.

    A write is refused because its condition does not hold.
    """
    answer = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or answer.get("Error", {}).get("Code") in {"PreconditionFailed", "412"}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
