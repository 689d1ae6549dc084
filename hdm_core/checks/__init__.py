"""Measurements of what explanations assume of a network."""
