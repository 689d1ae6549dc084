"""Class names compared as people read them: in Unicode's composed form, NFC."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache


def as_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names as a tuple of texts.

    Raises:
        TypeError: if they are one text, or a name is no text.
    """
    found = tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"class_names must be texts, one per class, not {names!r}")
    return tuple(map(str, found))


def class_numbers(name: str, names: Iterable[str]) -> list[int]:
    """Return the numbers of the classes with a name, usually one or none.

    Letters with accents have two spellings in Unicode, and macOS stores the names of folders in the other one than most editors write.
    Names are therefore compared in NFC. Case and spaces count.
    """
    return _numbers_by_name(tuple(names)).get(unicodedata.normalize("NFC", name), [])


def check_spellings(names: Iterable[str]) -> None:
    """Check that no two names are one name in two spellings of Unicode.

    The same name twice is allowed: ImageNet has two cranes.

    Raises:
        ValueError: if there are two.
    """
    first: dict[str, str] = {}
    for name in names:
        if first.setdefault(unicodedata.normalize("NFC", name), name) != name:
            raise ValueError(f"{name!r} occurs twice, with its accents composed and decomposed: write one of them")


@lru_cache(maxsize=8)  # a label is looked up for every image
def _numbers_by_name(names: tuple[str, ...]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(unicodedata.normalize("NFC", name), []).append(number)
    return numbers
