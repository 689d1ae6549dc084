"""The run on storage: maps (Zarr), records (Parquet), commits."""

from pipeline.runs.store import RunStore

__all__ = ["RunStore"]
