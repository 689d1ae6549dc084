"""Index of a tar: offset and size of every member."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from pipeline.datasets.contained import TarMember
from pipeline.datasets.files import HEADER, member_digest
from pipeline.errors import InputError, one_line

_MAX_BYTES = 1 << 20  # of a member that is read while the index is made


@dataclass(frozen=True)
class IndexedMember:
    """A file in a tar.

    Attributes:
        name: its path in the tar.
        address: place of its data.
        data: its data, if they were asked for.
    """

    name: str
    address: TarMember
    data: bytes | None = None


@dataclass
class TarIndex:
    """Files of a tar in their order.

    Attributes:
        members: regular files.
        others: names of links, devices and sparse files, which have no data of their own in one piece.
        is_ended: whether the tar has the mark of its end; without it the tar may be cut between two members.
    """

    members: list[IndexedMember] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    is_ended: bool = True


def index_tar(file: BinaryIO, container: str, is_wanted: Callable[[str], bool]) -> TarIndex:
    """Make the index of a tar in one pass over its headers.

    Args:
        file: the tar, which can seek.
        container: its path or URL, for addresses and errors.
        is_wanted: whether the data of a member of this name are read into the index; at most 1 MiB each.

    Raises:
        InputError: if it is no tar or a compressed one, if it is cut or damaged, or if a member's name comes twice.
    """
    index, names = TarIndex(), set()
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps all, at 1 kB each
                if info.isdir():
                    continue
                name = info.name.encode(errors="backslashreplace").decode()
                if not info.isreg() or info.issparse():
                    index.others.append(name)
                    continue
                if name in names:
                    raise InputError(f"{container}: two members have the name {name!r}; names in a tar must differ")
                names.add(name)
                file.seek(info.offset_data - HEADER)
                header = file.read(HEADER)
                data = file.read(info.size) if is_wanted(name) and info.size <= _MAX_BYTES else None
                index.members.append(IndexedMember(name, TarMember(container, info.offset_data, info.size, member_digest(header)), data))
            file.seek(tar.offset)
            end = file.read(HEADER)
    except (tarfile.TarError, EOFError) as error:
        why = f"after {len(index.members):,} files" if index.members else "at its beginning"
        raise InputError(f"{container}: no tar, or compressed, cut or damaged {why} ({one_line(error)}); copy it again") from None
    if end.strip(b"\0"):  # tarfile ends silently at a header that is damaged or cut
        raise InputError(f"{container}: cut or damaged after {len(index.members):,} files, at byte {tar.offset:,}; copy it again")
    index.is_ended = len(end) == HEADER
    return index
