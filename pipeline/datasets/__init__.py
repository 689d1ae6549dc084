"""Datasets: each kind lists its images and ground truth as samples."""

from __future__ import annotations

from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.listing import Listing
from pipeline.datasets.registry import DATASETS, AnyDatasetConfig, parse_dataset
from pipeline.datasets.sample import Masks, Sample
from pipeline.datasets.samples import list_samples

__all__ = [
    "DATASETS",
    "AnyDatasetConfig",
    "DatasetConfig",
    "DatasetKind",
    "Listing",
    "Masks",
    "Sample",
    "list_samples",
    "parse_dataset",
]
