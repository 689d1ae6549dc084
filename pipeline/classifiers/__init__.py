"""Classifiers to explain: where they come from, and the classes to explain."""
