"""Benchmarks: `python -m benchmarks NAME`; not part of the installed package."""
