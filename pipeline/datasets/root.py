"""Root folder of a dataset on a disk or an object store.

It gives access to the dataset's files and their contents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from pipeline.datasets.listing import ListingNotes
from pipeline.datasets.sample import absolute, below, is_hidden
from pipeline.datasets.walk import HIDDEN, walk
from pipeline.errors import InputError, one_line
from pipeline.storage.retry import UNREACHABLE

_BROKEN = (OSError, ValueError, ImportError, *UNREACHABLE)


@dataclass(frozen=True)
class Root:
    """An existing folder.

    Attributes:
        base: path of the folder as the fsspec file system names it.
        url: path or URL of the folder as a Sample names it.
        local: path of the folder if it is on a disk, for `Sample.root`; None for a URL.
    """

    fs: AbstractFileSystem
    base: str
    url: str
    local: str | None

    @classmethod
    def at(cls, root: str, storage: Mapping[str, Any], what: str) -> Root:
        """Open the folder `root`.

        Args:
            what: description of the expected folder, for the error.

        Raises:
            InputError: if there is no such folder, or the protocol is unknown.
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
        """Return the folder that contains this one; None for a whole bucket or disk."""
        if "/" not in self.base.lstrip("/"):
            return None
        base, url = self.base.rpartition("/")[0], self.url.rpartition("/")[0]
        return Root(self.fs, base, url, self.local and base)

    def find(self, folder: str = "", notes: ListingNotes | None = None) -> list[str]:
        """List the visible files below the root or one of its folders.

        Return sorted relative paths; the list is empty if there is no such folder. On a disk, links to folders are followed as by
        `walk`.

        Args:
            notes: where what is left out is counted.

        Raises:
            InputError: if they cannot be listed, or a link leads to a folder outside.
        """
        notes = ListingNotes() if notes is None else notes
        start = f"{self.base}/{folder}".rstrip("/") if folder else self.base
        try:
            if self.local is not None:
                return [f"{folder}/{relative}" if folder else relative for relative in walk(start, notes)]
            paths = sorted(path[len(self.base) :].lstrip("/") for path in self.fs.find(start) if not path.endswith("/"))
            return list(_visible(paths, notes))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except _BROKEN as error:
            raise InputError(f"{self.url}: cannot be listed ({one_line(error)}); look at dataset.root and storage") from None

    def path(self, relative: str) -> str:
        """Return the path or URL of a file as a Sample names it.

        Raises:
            InputError: if the path would leave the root.
        """
        return below(self.url, relative)

    def read(self, relative: str) -> bytes:
        """Read a file.

        Raises:
            InputError: if the file cannot be read.
        """
        try:
            data: bytes = self.fs.cat_file(f"{self.base}/{relative}")
        except _BROKEN as error:
            raise InputError(f"{self.path(relative)}: cannot be read ({one_line(error)}); look at dataset.root and dataset.kind") from None
        return data

    def rows(self, relative: str, columns: int) -> Iterator[tuple[str, ...]]:
        """Yield the rows of a text file with columns separated by spaces.

        The last column is the rest of its line.

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


def _visible(paths: Iterable[str], notes: ListingNotes) -> Iterator[str]:
    """Yield the paths that are not hidden; a hidden folder counts once."""
    hidden: set[str] = set()
    for path in paths:
        if not is_hidden(path):
            yield path
            continue
        parts = path.split("/")
        depth = next(depth for depth, part in enumerate(parts, start=1) if part.startswith("."))
        hidden.add("/".join(parts[:depth]))
    for path in hidden:
        notes.leave_out(HIDDEN, path)
