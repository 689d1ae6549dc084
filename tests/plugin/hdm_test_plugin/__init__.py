"""A package outside hdm that adds entries to its registries."""
