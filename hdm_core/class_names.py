"""Class names compared as people read them: in Unicode's composed form, NFC."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache


def class_numbers(name: str, names: tuple[str, ...]) -> list[int]:
    """Return the numbers of the classes with a name, usually one or none.

    Letters with accents have two spellings in Unicode, and macOS stores the names of folders in the other one than most editors write.
    Names are therefore compared in NFC. Case and spaces count.
    """
    return _numbers_by_name(names).get(unicodedata.normalize("NFC", name), [])


def check_spellings(names: Iterable[str]) -> None:
    """Check that no two names are one name in two spellings of Unicode.

    The same name twice is allowed: ImageNet has two cranes.

    Raises:
        ValueError: if there are two.
    """
    first: dict[str, str] = {}
    for name in names:
        if first.setdefault(unicodedata.normalize("NFC", name), name) != name:
            raise ValueError(f"{name!r} is there twice, with its accents composed and decomposed: write one of them")


@lru_cache(maxsize=8)  # a label is looked up for every image
def _numbers_by_name(names: tuple[str, ...]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(unicodedata.normalize("NFC", name), []).append(number)
    return numbers
