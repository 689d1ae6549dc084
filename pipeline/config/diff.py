"""Differences between two configurations."""

from __future__ import annotations

from typing import Any


def differences(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys in which two configurations differ, with both values."""
    found = []
    for key in sorted({*there, *here}):
        old, new = there.get(key), here.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} ({old!r}, now {new!r})")
    return found
