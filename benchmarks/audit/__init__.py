"""Benchmark of `hdm audit` with shortcuts that are planted in photographs."""
