"""A run made again: what an earlier run holds already is taken from it, the rest is computed."""
