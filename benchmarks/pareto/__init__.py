"""Pareto benchmark: quality of settings against the passes that they cost."""
