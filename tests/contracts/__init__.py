"""Suites that every member of a family must pass."""
