"""Rows that an expression matches, found once for all queries of a page."""

from __future__ import annotations

import threading
from collections import OrderedDict

from pipeline.runs.expression import check_expression
from pipeline.view.columns import Columns
from pipeline.view.database import Database

_KEPT = 8  # expressions, one byte per result each
_COLUMN = '"matches the filter"'

Key = tuple[str, str, int]


class Matching:
    """Tables with one boolean per result, in the order of the results.

    A page counts some twenty columns of the images that an expression matches. `like` over a million names takes 0.1 to 0.3 seconds, and
    a column of booleans that is read beside the results a tenth of that.

    Args:
        table: of the results, to which rows are only added.
    """

    def __init__(self, database: Database, columns: Columns, table: str) -> None:
        self._database, self._columns, self._table = database, columns, table
        self._made: OrderedDict[Key, str] = OrderedDict()
        self._number = 0
        self._lock = threading.Lock()

    def checked(self, where: str) -> str:
        """Return an expression as a condition of SQL.

        Raises:
            InputError: if it is not allowed.
        """
        return check_expression(where, self._columns.names, self._database.serialise, "filter")

    def source(self, where: str, method: str, version: int) -> tuple[str, str]:
        """Return the results with a further column, and the condition on it.

        Results of rank 0 of the method that match fulfil the condition.

        Args:
            version: of the results; those that were added since do not match.

        Raises:
            InputError: if the expression is not allowed, or fails.
        """
        key = (where, method, version)
        with self._lock:
            if key not in self._made:
                condition = self.checked(where)
                self._number += 1
                name = f"matching_{self._number}"
                matches = f"coalesce(method = ? AND rank = 0 AND {condition}, false) AS {_COLUMN}"
                self._database.rows(f"CREATE TABLE {name} AS SELECT {matches} FROM {self._table}", [method])
                self._made[key] = name
            self._made.move_to_end(key)
            while len(self._made) > _KEPT:
                self._database.rows(f"DROP TABLE {self._made.popitem(last=False)[1]}")
            return f"{self._table} POSITIONAL JOIN {self._made[key]}", _COLUMN
