"""Queries of the viewer: pages of images, facets, histograms."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.view.columns import OTHER_COLUMNS, Columns
from pipeline.view.database import Database, quoted
from pipeline.view.matching import Matching
from pipeline.view.state import State

T = TypeVar("T")

PAGE = 48  # images per page

_BINS = 30
_KEPT = 64  # counts of so many filters
_VALUES = 12  # of a facet that are listed


@dataclass(frozen=True)
class FacetValue:
    """A value of a facet with its number of images."""

    value: str | None
    count: int
    chosen: bool


@dataclass(frozen=True)
class Facet:
    """Values of one column.

    Attributes:
        name: parameter of the URL.
        more: number of values that are not listed.
    """

    name: str
    title: str
    values: Sequence[FacetValue]
    more: int


@dataclass(frozen=True)
class Histogram:
    """Counts of a column's values in bins of one width.

    Attributes:
        low, high: ends of the first and the last bin.
        missing: images without a value: null or NaN.
        limits: chosen range.
    """

    column: str
    title: str
    low: float
    high: float
    counts: Sequence[int]
    missing: int
    limits: tuple[float | None, float | None]


class Query:
    """Queries on the results of a run, and of a second one beside it.

    Values of the URL are bound as parameters, and columns are those of the run.

    Args:
        table: of the results.
        other: of the results of the second run.
        version: returns a number that changes when the tables grow.
    """

    def __init__(
        self, database: Database, columns: Columns, table: str, other: str | None = None, version: Callable[[], int] = lambda: 0
    ) -> None:
        self._database, self._columns, self._version = database, columns, version
        self._source = table if other is None else _compared(table, other)
        # The results of two runs are joined anew by each query, in no order.
        self._matching, self._joined = Matching(database, columns, table), other is not None
        self._counted: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, state: State) -> tuple[list[dict[str, Any]], int]:
        """Return the images of the state's page, one row each, and the number of all."""
        source, condition, values = self._condition(state)
        (total,) = self._rows(f"SELECT count(*) AS n FROM {source} WHERE {condition}", values)
        return self._sorted(state, PAGE, (state.page - 1) * PAGE), total["n"]

    def around(self, state: State, at: int) -> dict[int, int]:
        """Return the rows of an image's neighbours in the list: place -> row."""
        first = max(0, at - 1)
        return {first + number: row["row"] for number, row in enumerate(self._sorted(state, at + 2 - first, first))}

    def image(self, row: int) -> list[dict[str, Any]]:
        """Return all results of one image, of rank 0 first."""
        return self._rows(f"SELECT * FROM {self._source} WHERE row = ? ORDER BY rank", [row])

    def counts(self, state: State) -> tuple[list[Facet], list[Histogram]]:
        """Return facets and histograms, which all pages of a filter share."""
        filters = (state.method, tuple(state.facets.items()), tuple(state.ranges.items()), state.where)
        return self._kept((filters, self._version()), lambda: (self.facets(state), self.histograms(state)))

    def _kept(self, key: Hashable, count: Callable[[], T]) -> T:
        """Return what was counted before, or count it."""
        with self._lock:
            if key in self._counted:
                return self._counted[key]  # type: ignore[no-any-return]
        result = count()
        with self._lock:
            self._counted[key] = result
            while len(self._counted) > _KEPT:
                self._counted.popitem(last=False)
        return result

    def facets(self, state: State) -> list[Facet]:
        """Count the values of each facet.

        Counted are the images that the other filters leave. A column without any value is no facet.
        """
        found = []
        for name, (column, title) in self._columns.facets.items():
            source, condition, values = self._condition(state, without=name)
            text = f"{quoted(column)}::VARCHAR"
            counted = self._rows(
                f"SELECT {text} AS value, count(*) AS n, count(*) OVER () AS different FROM {source} WHERE {condition} "
                f"GROUP BY 1 ORDER BY n DESC, value LIMIT {_VALUES}",
                values,
            )
            listed = [FacetValue(each["value"], each["n"], state.chosen(name, each["value"])) for each in counted]
            shown = {each.value for each in listed}
            listed += [FacetValue(value, 0, chosen=True) for value in state.facets.get(name, ()) if value not in shown]
            if any(each.value is not None for each in listed) or state.facets.get(name):
                found.append(Facet(name, title, listed, max(0, (counted[0]["different"] if counted else 0) - len(counted))))
        return found

    def histograms(self, state: State) -> list[Histogram]:
        """Count the values of each column of numbers.

        The bins are those of all images of the method, so that they stay where they are while filters change. A column without finite
        values has no histogram.
        """
        columns = self._columns.numbers
        ends_of_all = self._kept(("ends", state.method, self._version()), lambda: self._ends(state.method))
        found = []
        for column, low, high in zip(columns, ends_of_all[::2], ends_of_all[1::2], strict=True):
            if low is None or high is None:
                continue
            width = (high - low) / _BINS or 1.0
            source, condition, values = self._condition(state, without=column)
            value = f"{quoted(column)}::DOUBLE"
            counted = self._rows(
                f"SELECT CASE WHEN isfinite({value}) THEN greatest(0, least({_BINS - 1}, floor(({value} - ?) / ?)))::INTEGER END AS bin, "
                f"count(*) AS n FROM {source} WHERE {condition} GROUP BY 1",
                [low, width, *values],
            )
            counts = {each["bin"]: each["n"] for each in counted}
            missing = counts.pop(None, 0)
            bins = [counts.get(number, 0) for number in range(_BINS)]
            limits = state.ranges.get(column, (None, None))
            found.append(Histogram(column, self._columns.title(column), low, low + width * _BINS, bins, missing, limits))
        return found

    def _ends(self, method: str) -> list[float | None]:
        """Return the least and the greatest finite value of each column, in turn."""
        ends = ", ".join(
            f"{end}({column}) FILTER (isfinite({column}::DOUBLE))"
            for column in map(quoted, self._columns.numbers)
            for end in ("min", "max")
        )
        (row,) = self._rows(f"SELECT list_value({ends})::DOUBLE[] AS ends FROM {self._source} WHERE method = ? AND rank = 0", [method])
        found: list[float | None] = row["ends"]
        return found

    def _sorted(self, state: State, limit: int, offset: int) -> list[dict[str, Any]]:
        """Return some images of the sorted list.

        Rows alone are sorted, and the other columns are read for those that are shown.
        """
        source, condition, values = self._condition(state)
        column, direction = quoted(state.sort), "DESC" if state.descending else "ASC"
        # Images without a value come last in either direction.
        missing = f"({column} IS NULL OR isnan({column}::DOUBLE)), " if state.sort in self._columns.numbers else ""
        order = f"{missing}{column} {direction} NULLS LAST" + ("" if state.sort == "row" else ", row")
        found = self._rows(f"SELECT row FROM {source} WHERE {condition} ORDER BY {order} LIMIT {limit:d} OFFSET {offset:d}", values)
        rows = [each["row"] for each in found]
        if not rows:
            return []
        marks = ", ".join("?" * len(rows))
        shown = self._rows(f"SELECT * FROM {self._source} WHERE row IN ({marks}) AND method = ? AND rank = 0", [*rows, state.method])
        by_row = {each["row"]: each for each in shown}
        return [by_row[row] for row in rows]

    def _condition(self, state: State, without: str | None = None) -> tuple[str, str, list[Any]]:
        """Return the table and the condition of a state, and its parameters.

        Args:
            without: facet or column whose own filter is left out.
        """
        parts: list[str] = ["method = ?", "rank = 0"]
        values: list[Any] = [state.method]
        for name, chosen in state.facets.items():
            if name == without:
                continue
            column = quoted(self._columns.facets[name][0])
            named = [value for value in chosen if value is not None]
            choices = [f"{column}::VARCHAR IN ({', '.join('?' * len(named))})"] if named else []
            parts.append(f"({' OR '.join(choices + ([f'{column} IS NULL'] if None in chosen else []))})")
            values += named
        for column, limits in state.ranges.items():
            if column != without:
                for sign, limit in zip((">=", "<="), limits, strict=True):
                    if limit is not None:
                        # DuckDB takes NaN for the greatest value, and an image without a value is in no range. The limits are
                        # compared in float32, as most columns are: 0.7 of a URL is then the 0.7 of a record.
                        parts.append(f"(isfinite({quoted(column)}::DOUBLE) AND {quoted(column)}::FLOAT {sign} ?::FLOAT)")
                        values.append(limit)
        source = self._source
        if state.where and self._joined:
            parts.append(self._matching.checked(state.where))
        elif state.where:
            source, matches = self._matching.source(state.where, state.method, self._version())
            parts.append(matches)
        return source, " AND ".join(parts), values

    def _rows(self, sql: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        return self._database.rows(sql, values)


def _compared(table: str, other: str) -> str:
    """Return a table of both runs' results, matched by image_id, method and rank."""
    probability, change = OTHER_COLUMNS
    return (
        f"(SELECT r.*, o.row AS other_row, o.status AS other_status, o.target_name AS other_target_name, o.probability AS {probability}, "
        f"r.probability - o.probability AS {change}, "
        "CASE WHEN r.target IS NULL OR o.target IS NULL THEN NULL WHEN r.target = o.target THEN 'no' ELSE 'yes' END AS flip "
        f"FROM {table} r LEFT JOIN {other} o ON r.image_id = o.image_id AND r.method = o.method AND r.rank = o.rank)"
    )
