"""Classes of a Hugging Face table: its column, and its schema's ClassLabel."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from pipeline.datasets.labels import as_label


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the names of a ClassLabel; None if the schema has none for the column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def label_and_name(value: Any, names: list[str] | None) -> tuple[int | None, str | None]:
    """Return label and name of a row's class; the value -1 is no label.

    Raises:
        ValueError: if the value is neither a name nor a whole number, or has no name in the ClassLabel.
    """
    if value is None or value == "" or value == -1:
        return None, None
    if isinstance(value, str):
        return None, value
    label = as_label(value)
    if names is None or label is None:
        return label, None
    if not 0 <= label < len(names):
        raise ValueError(f"label {label}, but the ClassLabel has {len(names)} names")
    return label, names[label]
