"""Packaged run configurations."""
