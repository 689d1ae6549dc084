"""Classifiers and the classes to explain."""
