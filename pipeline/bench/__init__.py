"""Measurements of this project, as ratios to something measured beside it: `hdm bench`."""
