"""A folder on a disk or an object store, through fsspec: whole-object writes, create-only writes, listings."""

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
        patience: for so many seconds a request is tried again where a server is away, busy or broken.

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
        """The folder `name` below an output.

        Raises:
            InputError: if the output's protocol is unknown.
        """
        try:
            return cls(f"{output.removesuffix('/')}/{name}", options, timeout)
        except (ValueError, ImportError) as error:
            raise InputError(f"output {output}: {one_line(error)}") from None

    def __reduce__(self) -> tuple[type[Storage], tuple[str, dict[str, Any], float]]:
        return Storage, (self.url(""), self.options, self.timeout)  # a file system's connections do not travel

    def path(self, name: str) -> str:
        """An object's path in the file system's own terms."""
        return f"{self.root}/{name}" if name else self.root

    def url(self, name: str) -> str:
        """An object's path as a user would write it."""
        return self.path(name) if self.local else str(self.fs.unstrip_protocol(self.path(name)))

    def read(self, name: str) -> bytes:
        """An object's bytes.

        Raises:
            FileNotFoundError: if there is none.
        """
        data: bytes = self._retry(lambda: self.fs.cat_file(self.path(name)))
        return data

    def read_json(self, name: str) -> dict[str, Any]:
        """An object that holds JSON."""
        value: dict[str, Any] = json.loads(self.read(name))
        return value

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """An object's bytes and the tag of this version or an earlier one, for `replace`.

        Raises:
            FileNotFoundError: if there is none.
            NotImplementedError: if the storage has no tags.
        """
        if self.local:
            data = self.read(name)
            return data, _sha256(data)
        # The tag first: where the object changes in between, `replace` refuses the old tag.
        tag = self._retry(lambda: self.fs.info(self.path(name), refresh=True)).get("ETag")
        if tag is None:
            raise NotImplementedError(f"{self.url('')} has no tags to compare and swap by")
        return self.read(name), str(tag)

    def write(self, name: str, data: bytes) -> None:
        """Writes an object whole: a reader sees the old bytes or the new ones, never half of them."""
        if self.local:
            temporary = self._temporary(name, data)
            temporary.replace(self.path(name))
        else:
            self._retry(lambda: self.fs.pipe_file(self.path(name), data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object unless there is one already; of several writers exactly one gets True, if their data differ."""
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
        """Writes an object if its tag is still this one: of several writers exactly one gets True, if their data differ."""
        if not self.local:
            try:
                return self._conditionally(name, data, IfMatch=tag)
            except FileNotFoundError:  # some servers say so of an object that is gone
                return False
        # Files know no condition: those who replace a folder's files take turns.
        with FileLock(self.path(f"{name.rpartition('/')[0]}/.lock"), timeout=self.timeout):
            if not self.exists(name) or _sha256(self.read(name)) != tag:
                return False
            self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """Removes an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._retry(lambda: self.fs.rm_file(self.path(name)))

    def is_conditional(self) -> bool:
        """Whether the storage keeps its word on `create` and `replace`; some servers ignore the condition and let everybody win."""
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
        """Whether there is such an object, asked anew."""
        self.fs.invalidate_cache()
        return bool(self._retry(lambda: self.fs.exists(self.path(name))))

    def names(self, folder: str) -> list[str]:
        """The names of a folder's objects, sorted: one listing; empty if there is no folder."""
        self.fs.invalidate_cache()
        try:
            found = self._retry(lambda: self.fs.ls(self.path(folder), detail=False))
        except FileNotFoundError:
            return []
        names = (path.rpartition("/")[2] for path in found)
        return sorted(name for name in names if name and not name.startswith(".") and not name.endswith(".tmp"))

    def zarr(self, name: str) -> Store:
        """The same place as a Zarr store."""
        if self.local:
            return LocalStore(self.path(name))
        return FsspecStore.from_url(self.url(name), storage_options={**self.options, "asynchronous": True})

    def _conditionally(self, name: str, data: bytes, **condition: str) -> bool:
        try:
            self._retry(lambda: self.fs.pipe_file(self.path(name), data, **condition))
        except OSError as error:
            if not _is_refusal(error):
                raise
            # The answer to a first try may have been lost on the way, and the second failed on what the first had written.
            try:
                return self.read(name) == data
            except FileNotFoundError:
                return False
        return True

    def _retry(self, work: Callable[[], T]) -> T:
        """Tries again, for as long as `patience` says, what fails because a server is away, busy or broken."""
        if self.local:
            return work()
        return retry(work, self.timeout, self.url(""))

    def _temporary(self, name: str, data: bytes) -> Path:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(data)
        except OSError:  # a disk that is full
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def to_json(value: Any) -> bytes:
    """JSON as people read it, the same bytes for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _is_refusal(error: OSError) -> bool:
    """Whether an object store wrote nothing because the condition does not hold."""
    answer = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or answer.get("Error", {}).get("Code") in {"PreconditionFailed", "412"}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
