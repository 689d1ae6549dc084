"""Runs on storage: maps in Zarr, records in Parquet, commits, leases."""

from pipeline.runs.store import RunStore

__all__ = ["RunStore"]
