"""Differences between two configurations."""

from __future__ import annotations

from typing import Any


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """List the dotted keys in which two configurations differ, with both values."""
    texts = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            texts += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            texts.append(f"{prefix}{key} ({before!r}, now {after!r})")
    return texts
