"""Batch: the images of a shard that go through the network together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdm_core import Classifier
from pipeline.datasets import Sample
from pipeline.datasets.batches import LoadedSample
from pipeline.plan import Shard


@dataclass(frozen=True)
class Batch:
    """B images with their ground truth.

    Attributes:
        rows: B rows of the dataset.
        samples: B samples.
        images: (B, C, H, W) as the classifier's preprocess gives them.
        regions: (B, H, W) bool, the ground truth.
        region_kinds: B kinds of ground truth: segmentation, bbox or none.
    """

    rows: Sequence[int]
    samples: Sequence[Sample]
    images: Tensor
    regions: Tensor
    region_kinds: Sequence[str]

    @classmethod
    def from_loaded(
        cls, classifier: Classifier, shard: Shard, samples: Sequence[Sample], loaded: Sequence[LoadedSample], images: Tensor | None = None
    ) -> Batch:
        """Move loaded samples of a shard to the classifier's device.

        Args:
            samples: all samples of the shard.
            images: (B, C, H, W), the images of the loaded samples; None if they are not stacked yet.
        """
        stacked = torch.stack([item.image for item in loaded]) if images is None else images
        return cls(
            rows=[shard.start + item.row for item in loaded],
            samples=[samples[item.row] for item in loaded],
            # Asynchronous on CUDA from page-locked memory, else as any copy.
            images=stacked.to(classifier.device, classifier.dtype or torch.float32, non_blocking=True),
            regions=torch.stack([item.region for item in loaded]),
            region_kinds=[item.kind for item in loaded],
        )
