"""The run on storage: maps (Zarr), records (Parquet), commits."""

from pipeline.store.run import RunStore

__all__ = ["RunStore"]
