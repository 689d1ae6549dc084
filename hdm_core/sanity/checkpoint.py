"""Reproducibility: the maps of another checkpoint."""

from __future__ import annotations

from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.sanity.answers import answers
from hdm_core.sanity.subject import LeftOutError, Subject, Variant

REPRODUCIBILITY = "reproducibility"


def other_checkpoint(subject: Subject, logits: Tensor, other: Classifier, images: Tensor, batch: int) -> Variant:
    """Return the subject with another training of the network.

    It concerns the images for which both predict the same class: a map of a class that a network does not see has another reason to differ.
    Arun et al., Radiology: Artificial Intelligence 2021, doi 10.1148/ryai.2021200267, call two trainings of one architecture repeatability,
    and two architectures reproducibility; either can be given here.

    Args:
        logits: (B, classes), of the subject's images.
        other: with the same classes, in the same order.
        images: (B, C, H, W), as the other classifier's preprocess gives them.

    Raises:
        LeftOutError: if it has another number of classes, or maps of another size.
    """
    if images.shape[-2:] != subject.images.shape[-2:]:
        height, width = subject.images.shape[-2:]
        raise LeftOutError(f"{other.name} has maps of {images.shape[-2]} x {images.shape[-1]} pixels, not {height} x {width}")
    found = answers(other, images, batch)
    if found.shape[1] != logits.shape[1]:
        raise LeftOutError(f"{other.name} has {found.shape[1]} classes, not {logits.shape[1]}")
    concerned = None if subject.classifier.problem_type == "regression" else found.argmax(1) == logits.argmax(1).to(found.device)
    return subject.variant(REPRODUCIBILITY, other.name, classifier=other, images=images, concerned=concerned)
