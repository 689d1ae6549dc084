"""Check of the folded copy, which the masking methods and the metrics run."""

from __future__ import annotations

from torch import Tensor

from hdm_core.checks.finding import Finding
from hdm_core.checks.probes import probe_images
from hdm_core.classifier import Classifier


def check_folding(classifier: Classifier, images: Tensor) -> Finding:
    """Fold the network, and compare its copy on photographs and noise.

    Args:
        images: (B, C, H, W), as the classifier's preprocess gives them.
    """
    with classifier.folded(probe_images(images)) as network:
        folded = network is not classifier.module
    if folded:
        return Finding("folded copy", "ok", "batch normalisation is folded into the convolutions, with the same logits and gradient")
    return Finding("folded copy", "handled", "the network is used unfolded, which is slower")
