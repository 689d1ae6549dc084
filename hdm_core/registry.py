"""Registries of entries, built in or added by installed packages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, MutableMapping
from importlib.metadata import entry_points
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """An entry of a registry: anything with an id."""

    @property
    def id(self) -> str:
        """Key of the entry."""


T = TypeVar("T", bound=Entry)

_log = logging.getLogger(__name__)


class Registry(MutableMapping[str, T], Generic[T]):
    """Entries by id: the built-in ones in order, then those of installed packages.

    Entry points are loaded at the first look-up, so that a plugin may import all of this package. One that fails to import, is
    of another type or has the id of another entry is skipped with one line in the log.

    Args:
        group: the entry points' group, such as "hdm.methods". Each names an entry, or an iterable of entries.
        kind: the type of all entries.
        entries: the built-in ones.
    """

    def __init__(self, group: str, kind: type[T], entries: Iterable[T]) -> None:
        self.group = group
        self._kind = kind
        self._entries = {entry.id: entry for entry in entries}
        self._loaded = False

    def __getitem__(self, name: str) -> T:
        return self._all()[name]

    def __setitem__(self, name: str, entry: T) -> None:
        self._all()[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def sort(self, ids: Iterable[str]) -> list[str]:
        """Return ids once each in the registry's order.

        Those that are not installed here follow, in the order given.
        """
        given = dict.fromkeys(ids)
        return [*(name for name in self if name in given), *(name for name in given if name not in self)]

    def _all(self) -> dict[str, T]:
        if not self._loaded:
            self._loaded = True
            for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
                try:
                    loaded = point.load()
                    entries = [loaded] if isinstance(loaded, self._kind) else list(loaded)
                    for entry in entries:
                        self._add(entry)
                except Exception as error:  # whatever a plugin raises must not stop what does not need it
                    reason = " ".join(str(error).split()) or "no reason given"
                    _log.warning("plugin %s of %s was skipped: %s: %s", point.value, self.group, type(error).__name__, reason)
        return self._entries

    def _add(self, entry: T) -> None:
        if not isinstance(entry, self._kind):
            raise TypeError(f"{entry!r} is no {self._kind.__name__}")
        if entry.id in self._entries:
            raise ValueError(f"there is a {self._kind.__name__} {entry.id!r} already")
        self._entries[entry.id] = entry
