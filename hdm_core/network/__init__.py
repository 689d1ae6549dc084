"""Hooks into a network and rewrites of it."""
