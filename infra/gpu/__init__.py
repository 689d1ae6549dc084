"""Checks for a short turn on a GPU: `make gpu`, with one JSON as the result.

They need torch, torchvision, pydantic, scikit-image and pytest, and neither the project's environment nor Ray, Zarr, Prefect or S3.
"""
