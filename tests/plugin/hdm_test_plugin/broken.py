"""A plugin that cannot be imported."""

raise ImportError("libsaliency.so.1 is not installed")
