"""Conditions on records: one expression of SQL, evaluated by DuckDB."""

from __future__ import annotations

import json
import re
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, one_line, suggest
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
_MISSING = re.compile(r'(?:column|key) "([^"]+)"')
_CLASS = re.compile(r"^[A-Za-z ]+ Error: ")
_LONGEST = 10_000  # characters: a longer text is no condition that a person has written


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
        self._check_syntax()
        empty = joined(RECORDS.empty_table(), IMAGES.empty_table())
        self._rows(empty, f"SELECT row FROM records WHERE (\n{text}\n)")  # noqa: S608 - as `_select`; a WHERE refuses aggregates
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
        return f"SELECT (\n{self.text}\n) FROM records"  # noqa: S608 - one expression, in a database without access to anything

    def _check_syntax(self) -> None:
        """Refuse what is not one expression without a subquery."""
        if not self.text.strip():
            raise InputError(f"{self._option}: the condition is empty")
        if len(self.text) > _LONGEST:
            raise InputError(f"{self._option}: the condition has {len(self.text):,} characters, more than {_LONGEST:,}")
        (answer,) = self._execute("SELECT json_serialize_sql(?)", [self._select()])[0]
        parsed: dict[str, Any] = json.loads(answer)
        if parsed["error"]:
            raise self._refusal(parsed["error_message"])
        (statement,) = parsed["statements"]
        node = statement["node"]
        plain = node["type"] == "SELECT_NODE" and len(node["select_list"]) == 1 and node["from_table"].get("table_name") == "records"
        clauses = ("modifiers", "where_clause", "group_expressions", "having", "qualify", "sample")
        if not plain or any(node.get(clause) for clause in clauses) or _has_subquery(node):
            raise self._refusal("give one condition on the columns, without SELECT, FROM, GROUP BY, ORDER BY or a subquery")

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
        # Only the first line: the rest quotes the query. The name of the class of the error says nothing more.
        line = _CLASS.sub("", reason.partition("\n")[0])
        missing = _MISSING.search(line) if "not found" in line else None
        if missing is not None:
            line = f"no column {missing[1]!r} (a text needs single quotes){suggest(missing[1], [*RECORDS.names, *_IMAGE_COLUMNS])}"
        return InputError(f"{self._option} {one_line(Exception(self.text), 200)}: {one_line(Exception(line), 300)}")


def joined(records: pa.Table, images: pa.Table) -> pa.Table:
    """Return records with the columns of their images.

    Args:
        images: images.parquet, whole: its position is the row.
    """
    of_records = images.select(_IMAGE_COLUMNS).take(pc.index_in(records["row"], images["row"]))
    for name in _IMAGE_COLUMNS:
        records = records.append_column(IMAGES.field(name), of_records[name])
    return records


def _has_subquery(node: Any) -> bool:
    """Return True if a node of a parsed query, or one below it, is a subquery."""
    if isinstance(node, dict):
        return node.get("class") == "SUBQUERY" or any(_has_subquery(each) for each in node.values())
    return isinstance(node, list) and any(map(_has_subquery, node))
