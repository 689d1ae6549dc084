"""Orchestration: Prefect flows over `pipeline`."""
