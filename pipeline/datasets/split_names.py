"""Names by which folders and files are recognised as splits."""

from __future__ import annotations

import re

SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "test"})

_PREFIX = re.compile(rf"({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)


def split_of_file(relative: str) -> str | None:
    """Return the split of a file that holds many images; None if its name has none.

    It is the first folder that is named like a split, else the beginning of the file's name: train-00000-of-00002.parquet.
    """
    *folders, name = relative.split("/")
    for folder in folders:
        if folder.casefold() in SPLIT_NAMES:
            return folder
    match = _PREFIX.match(name)
    return match.group(1) if match else None
