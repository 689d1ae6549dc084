"""The orchestration: Prefect flows over `pipeline`."""
