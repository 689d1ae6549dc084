"""Conditions on records: one expression of SQL, evaluated by DuckDB."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, one_line
from pipeline.runs.expression import check_expression
from pipeline.runs.images import IMAGES
from pipeline.runs.records import RECORDS

# No file, no network, no extension, no variable of this process; and no way to allow them again.
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "1",  # and so the rows stay in order
}
_IMAGE_COLUMNS = [name for name in IMAGES.names if name not in RECORDS.names]


class Where:
    """A condition on the records joined with images.parquet.

    It is one expression that is true or false of a row, such as `insertion_auc < 0.2 and class_name like 'wren%'`. Subqueries are refused:
    records are read shard by shard, and a subquery would see one shard.

    Args:
        text: the expression.
        option: where the text comes from, for errors.

    Raises:
        InputError: if it is no valid expression, names a column that does not exist, or has another type than BOOLEAN.
    """

    def __init__(self, text: str, option: str = "--where") -> None:
        self.text = text
        self._option = option
        self._connection = duckdb.connect(":memory:", config=_CLOSED)
        self._connection.execute("SET lock_configuration = true")
        self._condition = check_expression(text, [*RECORDS.names, *_IMAGE_COLUMNS], self._serialise, option)
        empty = joined(RECORDS.empty_table(), IMAGES.empty_table())
        kind = self._rows(empty, f"DESCRIBE {self._select()}")[0][1]
        if kind != "BOOLEAN":
            raise InputError(f"{option} {one_line(Exception(text), 200)}: gives {kind}, not true or false; compare it with a value")

    def __call__(self, records: pa.Table, images: pa.Table) -> pa.Table:
        """Return the records of which the condition is true.

        Args:
            records: with the columns of RECORDS.
            images: images.parquet, whole, with the facts that are known.

        Raises:
            InputError: if a value cannot be evaluated, such as a text that is cast to a number.
        """
        true = [row[0] is True for row in self._rows(joined(records, images), self._select())]
        return records.filter(pa.array(true, pa.bool_()))

    def _select(self) -> str:
        return f"SELECT {self._condition} FROM records"  # noqa: S608 - checked, and in a database without access to anything

    def _serialise(self, query: str) -> str:
        return str(self._execute("SELECT json_serialize_sql(?)", [query])[0][0])

    def _rows(self, table: pa.Table, query: str) -> list[Any]:
        self._connection.register("records", table)
        try:
            return self._execute(query)
        finally:
            self._connection.unregister("records")

    def _execute(self, query: str, values: list[str] | None = None) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except duckdb.Error as error:
            raise self._refusal(str(error)) from None

    def _refusal(self, reason: str) -> InputError:
        line = reason.partition("\n")[0]  # the rest quotes the query
        return InputError(f"{self._option} {one_line(Exception(self.text), 100)!r}: {one_line(Exception(line), 300)}")


def joined(records: pa.Table, images: pa.Table) -> pa.Table:
    """Return records with the columns of their images.

    Args:
        images: images.parquet, whole: its position is the row.
    """
    of_records = images.select(_IMAGE_COLUMNS).take(pc.index_in(records["row"], images["row"]))
    for name in _IMAGE_COLUMNS:
        records = records.append_column(IMAGES.field(name), of_records[name])
    return records
