"""Labels that are numbers in a table or a file of JSON."""

from __future__ import annotations

from typing import Any


def as_label(label: Any) -> int | None:
    """Convert a label to a whole number; None stays.

    Raises:
        ValueError: if it is no whole number, or not below 2^31.
    """
    if label is None:
        return None
    if not isinstance(label, int | float) or label != label // 1 or abs(label) >= 2**31:
        raise ValueError(f"label must be a whole number or a name, not {label!r}")
    return int(label)
