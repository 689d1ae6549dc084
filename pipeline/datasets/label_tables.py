"""Label tables of a dataset: CSV, or a workbook's first sheet."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Sequence

import openpyxl

from pipeline.datasets.root import Root
from pipeline.errors import InputError, one_line

_MOST_BYTES = 256 << 20  # of an unpacked workbook


def read_columns(root: Root, relative: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Read some columns of a table as one tuple of strings per row.

    Rows in which all of these columns are empty are skipped.

    Raises:
        InputError: if the table cannot be read, or lacks a column or a value.
    """
    where = root.path(relative)
    lines = iter(_lines(where, root.read(relative)))
    header = [str(cell or "").strip() for cell in next(lines, ())]
    if missing := [name for name in columns if name not in header]:
        raise InputError(f"{where}: no column {missing[0]!r}; its columns are {', '.join(filter(None, header))}")
    indices = [header.index(name) for name in columns]
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = [str("" if index >= len(line) or line[index] is None else line[index]).strip() for index in indices]
        if any(cells) and not all(cells):
            raise InputError(f"{where}, row {number}: {columns[cells.index('')]} is empty")
        if any(cells):
            rows.append(tuple(cells))
    return rows


def _lines(where: str, data: bytes) -> Iterable[Sequence[object]]:
    try:
        if where.endswith(".xlsx"):
            _check_unpacked(where, data)
            sheet = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True).worksheets[0]
            return list(sheet.iter_rows(values_only=True))
        return list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    except InputError:
        raise
    except Exception as error:  # openpyxl raises many types of errors on a broken workbook
        raise InputError(f"{where}: cannot be read as a table ({one_line(error)})") from None


def _check_unpacked(where: str, data: bytes) -> None:
    """Refuse a workbook that would fill the memory.

    A check of the declared sizes is enough: zipfile unpacks no more of a part than its archive declares.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > _MOST_BYTES:
        raise InputError(f"{where}: unpacks to {size / 2**20:,.0f} MiB; a table of labels has less than {_MOST_BYTES >> 20}")
