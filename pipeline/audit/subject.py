"""Classifier and images of a run, for the causal test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdm_core import Classifier
from hdm_core.device import default_batch, pick_device
from pipeline.classifiers.load import load_classifier, own_preparation, preprocess_of
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.batches import read_batches
from pipeline.errors import HdmError
from pipeline.runs import RunStore


@dataclass(frozen=True)
class Subject:
    """A run's classifier, the one that was explained, and its dataset."""

    config: RunConfig
    classifier: Classifier
    samples: Sequence[Sample]

    @property
    def batch(self) -> int:
        """Images per forward pass."""
        return self.config.compute.fixed_batch_size or default_batch(self.classifier.device)

    def read(self, rows: Sequence[int]) -> tuple[list[int], Tensor, Tensor]:
        """Read images; those that cannot be read any more are left out.

        Returns:
            Rows that were read, their images (N, C, H, W), and their regions (N, H, W) bool.
        """
        classifier, timeout = self.classifier, self.config.compute.storage_timeout
        batches = read_batches(
            self.samples,
            self.config.storage,
            preprocess_of(classifier),
            self.batch,
            rows,
            timeout=timeout,
            prepare=own_preparation(classifier),
        )
        loaded = [item for batch in batches for item in batch.loaded]
        if not loaded:
            return [], torch.empty(0), torch.empty(0, dtype=torch.bool)
        images = torch.stack([item.image for item in loaded]).to(classifier.device, torch.float32)
        return [item.row for item in loaded], images, torch.stack([item.region for item in loaded]).to(classifier.device)


def open_subject(store: RunStore) -> Subject | str:
    """Load a run's classifier and list its dataset, or return why that fails.

    Both must be those of the run: a test of another network would say nothing of the maps.
    """
    metadata = store.metadata()
    try:
        config = load_config(metadata["config"])
        classifier = load_classifier(config.classifier, config.seed)
        if classifier.weights_digest() != metadata["model_fingerprint"]:
            return "the classifier's weights are not those of the run"
        samples = list_samples(config.dataset, config.storage)
    except (HdmError, ValueError, OSError) as error:
        return f"the classifier or the images are gone ({error})"
    images = store.images()
    if [sample.image_id for sample in samples] != images["image_id"].to_pylist():
        return "the dataset's images are not those of the run"
    return Subject(config, classifier.to(pick_device(config.compute.gpus_per_worker)), samples)
