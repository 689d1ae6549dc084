"""Bytes of a sample's files, also of those inside a tar or a Parquet file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
from aiohttp import ClientResponseError
from fsspec import AbstractFileSystem

from hdm_core.sources.paths import local_path
from pipeline.datasets.contained import ParquetCell, TarMember, parse_address
from pipeline.datasets.errors import UnreadableError
from pipeline.datasets.row_groups import read_cell
from pipeline.errors import one_line
from pipeline.storage.retry import StorageTimeoutError, retry

HEADER = 512  # bytes of a member's header in a tar, just before its data
_MAX_BYTES = 1 << 30  # of a file: more than the largest image that is decoded takes uncompressed


def read_file(path: str, root: str | None, storage: Mapping[str, Any], timeout: float = 10.0) -> bytes:
    """Read a file, local or at a URL, or a part of one that an address names.

    Args:
        timeout: seconds for which requests to an object store are retried.

    Raises:
        StorageTimeoutError: if the object store does not answer.
        UnreadableError: if the file cannot be read, is too large, or a local path leads out of the root, or if the file around a part
            has changed since the part was listed.
    """
    match parse_address(path):
        case TarMember() as member:
            _check_bytes(member.size)
            start, end = member.offset - HEADER, member.offset + member.size
            data = _read(
                member.container,
                root,
                storage,
                timeout,
                lambda file: _range(file, start, end),
                lambda fs, url: fs.cat_file(url, start=start, end=end),
            )
            return _data_of_member(data, member)
        case ParquetCell() as cell:
            data = _read(
                cell.container, root, storage, timeout, lambda file: read_cell(file, cell), lambda fs, url: _remote_cell(fs, url, cell)
            )
            _check_bytes(len(data))
            return data
        case None:
            return _read(path, root, storage, timeout, _whole, _remote_whole)


def _read(
    path: str,
    root: str | None,
    storage: Mapping[str, Any],
    timeout: float,
    local: Callable[[BinaryIO], bytes],
    remote: Callable[[AbstractFileSystem, str], bytes],
) -> bytes:
    """Read by `local` from a file or by `remote` from a URL, with retries."""

    def fetch() -> bytes:
        opened = fsspec.open(path, "rb", **storage)
        return remote(opened.fs, opened.path)

    stored = not path.startswith(("http://", "https://"))  # a web host may be gone for good, an object store comes back
    try:
        if "://" not in path:
            path = str(local_path(path))
            if root is not None and not Path(path).resolve().is_relative_to(Path(root).resolve()):
                raise UnreadableError(f"{path} leads out of the dataset's root {root}")
            if not stat.S_ISREG(Path(path).stat().st_mode):  # reading a FIFO would block for ever
                raise UnreadableError(f"cannot read {path}: it is no file")
            with Path(path).open("rb") as file:
                return local(file)
        return retry(fetch, timeout if stored else min(timeout, 10.0), path)
    except StorageTimeoutError as error:
        if stored:
            raise
        raise UnreadableError(one_line(error)) from None
    except (OSError, ValueError, ImportError, RuntimeError, ClientResponseError, pa.ArrowException) as error:
        raise UnreadableError(f"cannot read {path}: {one_line(error)}") from None  # RuntimeError: a symbolic link to itself


def _whole(file: BinaryIO) -> bytes:
    _check_bytes(os.fstat(file.fileno()).st_size)
    return file.read()


def _remote_whole(fs: AbstractFileSystem, url: str) -> bytes:
    with fs.open(url, "rb") as file:
        _check_bytes(getattr(file, "size", None) or 0)  # a server may not send the size
        data: bytes = file.read(_MAX_BYTES + 1)
        _check_bytes(len(data))
    return data


def _remote_cell(fs: AbstractFileSystem, url: str, cell: ParquetCell) -> bytes:
    with fs.open(url, "rb", cache_type="none") as file:  # only the row group's bytes are requested
        return read_cell(file, cell)


def _range(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _data_of_member(data: bytes, member: TarMember) -> bytes:
    """Return a member's data, if its header is that of the listing."""
    if len(data) != HEADER + member.size or member_digest(data[:HEADER]) != member.digest:
        raise UnreadableError(f"{member.container} has changed since it was listed")
    return data[HEADER:]


def member_digest(header: bytes) -> str:
    """Return the digest of a member's header as its address has it."""
    return hashlib.sha256(header).hexdigest()[:16]


def _check_bytes(count: int) -> None:
    if count > _MAX_BYTES:
        raise UnreadableError(f"the file has more than {_MAX_BYTES / 2**30:g} GiB, which no image that is read has")
