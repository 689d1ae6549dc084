"""In-memory DuckDB without access to files, the network or its own settings."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import duckdb

from pipeline.errors import InputError, one_line

_MEMORY = "448MB"  # of DuckDB alone; with Python, torch and Arrow the process stays below 1 GiB
_SECONDS = 20.0  # after which a query is interrupted


class Database:
    """Tables in memory, one attached database per name.

    Tables are filled from Arrow. DuckDB itself can open no file and no URL, so that no expression of a user reaches beyond the tables.

    Args:
        names: of the attached databases.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._connection = duckdb.connect(":memory:")
        for name in names:
            self._connection.execute(f"ATTACH ':memory:' AS {quoted(name)} (COMPRESS)")
        # Without a folder to spill to: the default is a folder below the current one.
        for setting in (f"memory_limit='{_MEMORY}'", "temp_directory=''", "enable_external_access=false", "lock_configuration=true"):
            self._connection.execute(f"SET {setting}")

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a connection for one thread."""
        return self._connection.cursor()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query by column.

        Raises:
            InputError: if DuckDB refuses it, or it takes too long.
        """
        connection = self.connect()
        timer = threading.Timer(_SECONDS, connection.interrupt)
        timer.start()
        try:
            cursor = connection.execute(sql, list(parameters))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except duckdb.InterruptException:
            raise InputError(f"the filter takes more than {_SECONDS:g} seconds; write a narrower one") from None
        except duckdb.Error as error:
            raise InputError(f"the filter cannot be applied: {first_line(error)}") from None
        finally:
            timer.cancel()
            connection.close()

    def serialise(self, query: str) -> str:
        """Return DuckDB's syntax tree of a query, JSON."""
        (answer,) = self.rows("SELECT json_serialize_sql(?) AS tree", [query])
        return str(answer["tree"])

    def close(self) -> None:
        """Free the tables."""
        self._connection.close()


def quoted(name: str) -> str:
    """Return an identifier of SQL, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """Return the first line of DuckDB's message, which shows the query below it."""
    return one_line(Exception(next(iter(str(error).splitlines()), "")), 200)
