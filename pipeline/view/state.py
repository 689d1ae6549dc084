"""State of the viewer's pages, which is in the URL alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from pipeline.errors import InputError, suggest
from pipeline.view.columns import Columns

THEMES = ("auto", "light", "dark")

_MAX_VALUES = 200  # chosen values of one facet
_MAX_NUMBER = 10**9

Range = tuple[float | None, float | None]


@dataclass(frozen=True)
class State:
    """Choices of a visitor.

    Attributes:
        method: whose maps the grid shows.
        facets: parameter of a facet -> chosen values; None is a missing value.
        ranges: column -> least and greatest value.
        where: an expression over the columns, or empty.
        sort: a column.
        descending: whether the largest value comes first.
        page: from 1.
        at: place of an image in the sorted list, from 0; only of an image's page.
    """

    method: str
    facets: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    where: str = ""
    sort: str = "row"
    descending: bool = False
    page: int = 1
    theme: str = "auto"
    at: int | None = None

    @classmethod
    def parse(cls, query: Sequence[tuple[str, str]], columns: Columns, methods: Sequence[str]) -> State:
        """Read the parameters of a URL; empty ones are as absent.

        Raises:
            InputError: for an unknown parameter, column, method or value.
        """
        facets: dict[str, tuple[str | None, ...]] = {}
        ranges: dict[str, Range] = {}
        one: dict[str, str] = {}
        for name, value in query:
            kind, _, rest = name.partition("_")
            if value == "":
                continue
            if name in columns.facets or (kind == "no" and rest in columns.facets):
                facet, chosen = (name, value) if name in columns.facets else (rest, None)
                facets[facet] = (*facets.get(facet, ()), chosen)[:_MAX_VALUES]
            elif kind in ("min", "max") and rest in columns.numbers:
                low, high = ranges.get(rest, (None, None))
                ranges[rest] = (_number(name, value), high) if kind == "min" else (low, _number(name, value))
            elif name in _SINGLE:
                one[name] = value
            else:
                known = (*_SINGLE, *columns.facets, *(f"min_{column}" for column in columns.numbers))
                raise InputError(f"{name}: no such parameter of this page{suggest(name, known)}")
        return cls(
            _known("method", one.get("method", methods[0]), methods),
            facets,
            ranges,
            one.get("where", "").strip(),
            _known("sort", one.get("sort", "row"), columns.sortable),
            _known("order", one.get("order", "up"), ("up", "down")) == "down",
            max(1, _whole("page", one.get("page", "1"))),
            _known("theme", one.get("theme", "auto"), THEMES),
            _whole("at", one["at"]) if "at" in one else None,
        )

    def query(self) -> list[tuple[str, str]]:
        """Return the parameters, without those that have their default."""
        pairs = [("method", self.method)]
        for facet, values in self.facets.items():
            pairs += [(facet, value) if value is not None else (f"no_{facet}", "1") for value in values]
        for column, limits in self.ranges.items():
            pairs += [(f"{kind}_{column}", f"{value:.9g}") for kind, value in zip(("min", "max"), limits, strict=True) if value is not None]
        single = {"where": self.where, "sort": self.sort, "order": "down" if self.descending else "up", "theme": self.theme}
        single |= {"page": str(self.page), "at": "" if self.at is None else str(self.at)}
        defaults = {"sort": "row", "order": "up", "theme": "auto", "page": "1"}
        return pairs + [(name, value) for name, value in single.items() if value and value != defaults.get(name)]

    def url(self, path: str = "/", **changes: object) -> str:
        """Return the URL of a page with this state, or with some changes."""
        return f"{path}?{urlencode(replace(self, **changes).query())}"  # type: ignore[arg-type]  # names of the fields

    def chosen(self, facet: str, value: str | None) -> bool:
        """Return whether a value of a facet is chosen."""
        return value in self.facets.get(facet, ())

    @property
    def filtered(self) -> bool:
        """True if anything is filtered."""
        return bool(self.facets or self.ranges or self.where)


_SINGLE = ("method", "where", "sort", "order", "page", "theme", "at")


def _known(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise InputError(f"{name}={value}: unknown{suggest(value, known, list_all=len(known) < 12)}")
    return value


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{name}={text}: write a number such as 0.5")
    return value


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) > _MAX_NUMBER:
        raise InputError(f"{name}={text}: write a whole number")
    return int(text)
