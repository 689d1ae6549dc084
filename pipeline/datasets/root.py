"""The folder of a dataset, on a disk or an object store: what lies in it, and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from pipeline.datasets.sample import absolute, below
from pipeline.errors import InputError, one_line
from pipeline.storage.retry import UNREACHABLE

_BROKEN = (OSError, ValueError, ImportError, *UNREACHABLE)


@dataclass(frozen=True)
class Root:
    """A folder that exists.

    Attributes:
        base: the folder in the file system's own terms.
        url: the folder as a Sample names it.
        local: the same folder where it is on a disk; a Sample's root.
    """

    fs: AbstractFileSystem
    base: str
    url: str
    local: str | None

    @classmethod
    def at(cls, root: str, storage: Mapping[str, Any], what: str) -> Root:
        """The folder `root`.

        Args:
            what: a folder of what it should be, for the error's last words.

        Raises:
            InputError: if there is no such folder, or nobody knows the protocol.
        """
        root = absolute(root)
        try:
            fs, base = fsspec.core.url_to_fs(root, **(storage if "://" in root else {}))
            exists = fs.isdir(base)
        except _BROKEN as error:
            raise InputError(f"{root}: cannot be listed ({one_line(error)}); look at dataset.root and storage") from None
        if not exists:
            raise InputError(f"{root}: no such folder; set dataset.root to {what}")
        base = base.rstrip("/") or base
        return cls(fs, base, fs.unstrip_protocol(base) if "://" in root else base, None if "://" in root else base)

    def parent(self) -> Root | None:
        """The folder in which this one lies; none where it is a whole bucket or disk."""
        if "/" not in self.base.lstrip("/"):
            return None
        base, url = self.base.rpartition("/")[0], self.url.rpartition("/")[0]
        return Root(self.fs, base, url, self.local and base)

    def find(self, folder: str = "") -> list[str]:
        """The files below, or below one of its folders, as paths relative to the root, sorted; none where there is no such folder.

        Raises:
            InputError: if they cannot be listed.
        """
        start = f"{self.base}/{folder}".rstrip("/") if folder else self.base
        try:
            return sorted(path[len(self.base) :].lstrip("/") for path in self.fs.find(start))
        except FileNotFoundError:
            return []
        except _BROKEN as error:
            raise InputError(f"{self.url}: cannot be listed ({one_line(error)}); look at dataset.root and storage") from None

    def path(self, relative: str) -> str:
        """A file below as a Sample names it.

        Raises:
            InputError: if it would leave the root.
        """
        return below(self.url, relative)

    def read(self, relative: str) -> bytes:
        """A file's bytes.

        Raises:
            InputError: if it cannot be read.
        """
        try:
            data: bytes = self.fs.cat_file(f"{self.base}/{relative}")
        except _BROKEN as error:
            raise InputError(f"{self.path(relative)}: cannot be read ({one_line(error)}); look at dataset.root and dataset.kind") from None
        return data

    def rows(self, relative: str, columns: int) -> Iterator[tuple[str, ...]]:
        """The lines of a text whose columns are parted by spaces; the last column takes the rest of its line.

        Raises:
            InputError: if the file cannot be read, or a line has another number of columns.
        """
        text = self.read(relative).decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            row = tuple(line.split(maxsplit=columns - 1))
            if len(row) != columns:
                raise InputError(f"{self.path(relative)}, line {number}: {columns} columns are expected, not {line[:80]!r}")
            yield row
