"""Check of the folded copy, which the masking methods and the metrics run."""

from __future__ import annotations

from torch import Tensor

from hdm_core.checks.finding import Finding
from hdm_core.checks.probes import probe_images
from hdm_core.classifier import Classifier
from hdm_core.network.folding import fold_network


def check_folding(classifier: Classifier, images: Tensor) -> Finding:
    """Fold the network, and compare its copy on photographs and noise.

    Args:
        images: (B, C, H, W), as the classifier's preprocess gives them.
    """
    with classifier.frozen() as network:
        reason = fold_network(network, probe_images(images)).reason
    if reason is None:
        return Finding("folded copy", "ok", "batch normalisation is folded into the convolutions, with the same logits and gradient")
    return Finding("folded copy", "handled", f"the network is used unfolded, which is slower: {reason}")
