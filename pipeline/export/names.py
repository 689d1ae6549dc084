"""File names of exported images."""

from __future__ import annotations

import re
import unicodedata

_LONGEST = 120  # bytes of a name's text: file systems allow 255 bytes in all
_UNSAFE = re.compile(r"[^\w.-]+")


def file_name(row: int, image_id: str, rank: int, suffix: str) -> str:
    """Return a name that every file system takes, unique for a row and a rank.

    The row makes it unique, also where upper and lower case are one. The text is there for people: letters, digits, dots and hyphens of
    the id stay, everything else becomes an underscore, and a long id is cut.

    Args:
        suffix: with its dot.
    """
    stem = re.sub(r"\.[A-Za-z0-9]{2,5}$", "", image_id)
    text = _UNSAFE.sub("_", unicodedata.normalize("NFC", stem)).strip("._-")
    text = text.encode()[:_LONGEST].decode(errors="ignore")
    return f"{row:06d}{'-' if text else ''}{text}{f'.class-{rank + 1}' if rank else ''}{suffix}"
