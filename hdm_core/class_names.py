"""Class names compared as people read them: in Unicode's composed form, NFC."""

from __future__ import annotations

import unicodedata
from functools import lru_cache


def class_numbers(name: str, names: tuple[str, ...]) -> list[int]:
    """Return the numbers of the classes with a name, usually one or none.

    Letters with accents have two spellings in Unicode, and macOS stores the names of folders in the other one than most editors write.
    Names are therefore compared in NFC. Case and spaces count.
    """
    return _numbers_by_name(names).get(unicodedata.normalize("NFC", name), [])


@lru_cache(maxsize=8)  # a label is looked up for every image
def _numbers_by_name(names: tuple[str, ...]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(unicodedata.normalize("NFC", name), []).append(number)
    return numbers
