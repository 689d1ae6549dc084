"""Addresses of images inside a tar or a Parquet file.

An address is a path as `Sample.path` has it, so that workers and readers of images.parquet read the bytes without an index. It has
a digest of what stood around the bytes when they were listed; a file that was changed since is thereby noticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

_TAR = re.compile(r"tar://(\d+)\+(\d+)\+([0-9a-f]{16})::(.*)", re.DOTALL)
_PARQUET = re.compile(r"parquet://(\d+)\+(\d+)\+([0-9a-f]{16})\+([^:+]*)::(.*)", re.DOTALL)


@dataclass(frozen=True)
class TarMember:
    """Address of a member of a tar.

    Attributes:
        container: path or URL of the tar.
        offset: of the member's data, in bytes.
        size: of the member's data, in bytes.
        digest: first 16 digits of the sha256 of the 512 bytes before the data, the member's header.
    """

    container: str
    offset: int
    size: int
    digest: str

    def path(self) -> str:
        """Return the address as a Sample has it."""
        return f"tar://{self.offset}+{self.size}+{self.digest}::{self.container}"


@dataclass(frozen=True)
class ParquetCell:
    """Address of a cell with an image's bytes.

    Attributes:
        container: path or URL of the Parquet file.
        group: number of the row group.
        row: number of the row within its group.
        digest: first 16 digits of the sha256 of the group's metadata.
        column: name of the column: binary, or a struct with the field bytes.
    """

    container: str
    group: int
    row: int
    digest: str
    column: str

    def path(self) -> str:
        """Return the address as a Sample has it."""
        return f"parquet://{self.group}+{self.row}+{self.digest}+{quote(self.column, safe='')}::{self.container}"


def parse_address(path: str) -> TarMember | ParquetCell | None:
    """Parse a Sample's path; None for that of an ordinary file."""
    if match := _TAR.fullmatch(path):
        offset, size, digest, container = match.groups()
        return TarMember(container, int(offset), int(size), digest)
    if match := _PARQUET.fullmatch(path):
        group, row, digest, column, container = match.groups()
        return ParquetCell(container, int(group), int(row), digest, unquote(column))
    return None
