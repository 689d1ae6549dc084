"""Incremental runs: results of earlier runs are reused, the rest is computed."""
