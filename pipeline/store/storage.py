"""A folder on a disk or an object store, through fsspec: whole-object writes, create-only writes, listings."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore


class Storage:
    """Objects below one URL.

    Args:
        url: a local path, file:// or another fsspec URL such as s3://bucket/prefix.
        options: fsspec options of that file system.

    Raises:
        ValueError, ImportError: if fsspec does not know the protocol.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.options = dict(options or {})
        self.fs, root = fsspec.core.url_to_fs(url, **(self.options if "://" in url else {}))
        self.root = root.rstrip("/")
        self.local = isinstance(self.fs, LocalFileSystem)

    def __reduce__(self) -> tuple[type[Storage], tuple[str, dict[str, Any]]]:
        return Storage, (self.url(""), self.options)  # a file system's connections do not travel

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
        data: bytes = self.fs.cat_file(self.path(name))
        return data

    def read_json(self, name: str) -> dict[str, Any]:
        """An object that holds JSON."""
        value: dict[str, Any] = json.loads(self.read(name))
        return value

    def write(self, name: str, data: bytes) -> None:
        """Writes an object whole: a reader sees the old bytes or the new ones, never half of them."""
        if self.local:
            temporary = self._temporary(name, data)
            temporary.replace(self.path(name))
        else:
            self.fs.pipe_file(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object unless there is one already; of several writers exactly one gets True."""
        if self.local:
            temporary = self._temporary(name, data)
            try:
                os.link(temporary, self.path(name))
            except FileExistsError:
                return False
            finally:
                temporary.unlink()
            return True
        try:
            self.fs.pipe_file(self.path(name), data, mode="create")
        except OSError as error:  # object stores answer a lost race with errors of several kinds
            if isinstance(error, FileExistsError) or self.exists(name):
                return False
            raise
        return True

    def exists(self, name: str) -> bool:
        """Whether there is such an object, asked anew."""
        self.fs.invalidate_cache()
        return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str) -> list[str]:
        """The names of a folder's objects, sorted: one listing; empty if there is no folder."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rpartition("/")[2] for path in found if not path.endswith(".tmp"))

    def zarr(self, name: str) -> Store:
        """The same place as a Zarr store."""
        if self.local:
            return LocalStore(self.path(name))
        return FsspecStore.from_url(self.url(name), storage_options={**self.options, "asynchronous": True})

    def _temporary(self, name: str, data: bytes) -> Path:
        target = Path(self.path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}.tmp")
        temporary.write_bytes(data)
        return temporary


def to_json(value: Any) -> bytes:
    """JSON as people read it, the same bytes for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
