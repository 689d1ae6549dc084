"""Columns of a run's manifest that say where an image comes from."""

from __future__ import annotations

from pipeline.config.load import load_config
from pipeline.datasets.manifest import ManifestConfig, further_columns
from pipeline.errors import HdmError
from pipeline.runs import RunStore

_BATCH = 10_000  # rows that are Python objects at once


def manifest_columns(store: RunStore) -> dict[str, dict[str, str]]:
    """Return image id -> the manifest's own columns, such as site, device or year.

    Columns that the dataset itself uses, and those whose values all differ, say nothing of a group. A run of another kind of dataset, or
    whose manifest is gone, has none.
    """
    try:
        config = load_config(store.metadata()["config"])
        if not isinstance(config.dataset, ManifestConfig):
            return {}
        table = further_columns(config.dataset, config.storage)
    except HdmError:
        return {}
    own = [name for name in table.column_names if name != "image_id" and len(table[name].unique()) < len(table)]
    if not own:
        return {}
    return {
        row["image_id"]: {name: str(row[name]) for name in own if row[name] not in (None, "")}
        for batch in table.select(["image_id", *own]).to_batches(max_chunksize=_BATCH)
        for row in batch.to_pylist()
    }
