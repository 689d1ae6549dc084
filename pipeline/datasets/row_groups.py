"""Cells with the bytes of images, read from Parquet by row group."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from concurrent.futures import Future
from threading import Lock
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet

from pipeline.datasets.contained import ParquetCell
from pipeline.datasets.errors import UnreadableError

_KEPT = 2  # row groups in memory: the threads of a worker read rows in order, and are in two groups where one ends
_MAX_BYTES = 4 << 30  # of one group's images

_lock = Lock()
_groups: OrderedDict[tuple[str, int, str, str], Future[pa.ChunkedArray]] = OrderedDict()


def read_cell(file: BinaryIO, cell: ParquetCell) -> bytes:
    """Read the bytes in a cell.

    Its row group is read as a whole, once for all threads, and the last two groups stay in memory: rows in order cost one
    request per group.

    Args:
        file: the Parquet file, which is not read if the group is in memory.

    Raises:
        UnreadableError: if the file has changed, or the cell has no bytes.
        ArrowException: if it is no Parquet file.
    """
    key = (cell.container, cell.group, cell.digest, cell.column)
    with _lock:
        future = _groups.get(key)
        mine = future is None
        if future is None:
            future = _groups[key] = Future()
            while len(_groups) > _KEPT:
                _groups.popitem(last=False)
    if mine:
        try:
            future.set_result(_read_group(file, cell))
        except BaseException as error:
            with _lock:
                _groups.pop(key, None)  # a retry reads it again
            future.set_exception(error)
    column = future.result()
    if cell.row >= len(column):
        raise UnreadableError(f"{cell.container} has changed since it was listed")
    data = column[cell.row].as_py()
    if data is None:
        raise UnreadableError(f"{cell.container} has no bytes of the image in row {cell.row} of group {cell.group}")
    return bytes(data)


def group_digest(metadata: Any, group: int, column: str) -> str:
    """Return the digest of a row group as the address of a cell has it.

    It covers place, size and statistics of the group's columns with the image, and the number of rows.

    Args:
        metadata: of the Parquet file.
    """
    info = metadata.row_group(group)
    chunks = [info.column(number) for number in range(info.num_columns)]
    facts = [
        [chunk.path_in_schema, chunk.data_page_offset, chunk.total_compressed_size, repr(chunk.statistics and chunk.statistics.to_dict())]
        for chunk in chunks
        if chunk.path_in_schema.split(".")[0] == column
    ]
    return hashlib.sha256(json.dumps([info.num_rows, facts]).encode()).hexdigest()[:16]


def _read_group(file: BinaryIO, cell: ParquetCell) -> pa.ChunkedArray:
    parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=True)
    if cell.group >= parquet.num_row_groups or group_digest(parquet.metadata, cell.group, cell.column) != cell.digest:
        raise UnreadableError(f"{cell.container} has changed since it was listed")
    size = parquet.metadata.row_group(cell.group).total_byte_size
    if size > _MAX_BYTES:
        raise UnreadableError(f"{cell.container} has a row group of {size / 2**30:.1f} GiB; write it with smaller ones")
    is_struct = pa.types.is_struct(parquet.schema_arrow.field(cell.column).type)
    table = parquet.read_row_group(cell.group, columns=[f"{cell.column}.bytes" if is_struct else cell.column])
    column = table[cell.column]
    return pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], pa.binary()) if is_struct else column
