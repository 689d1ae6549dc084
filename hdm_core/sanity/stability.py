"""Stability: maps of images with a little noise, and of recompressed photographs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.photograph import Photograph
from hdm_core.sanity.answers import answers
from hdm_core.sanity.subject import Subject, Variant

NOISE, JPEG = "noise", "jpeg"
SIGMAS = (0.01, 0.02, 0.05)  # of the range from black to white: 3, 5 and 13 of 255 levels
QUALITY = 75  # Pillow's default


def noisy(subject: Subject, logits: Tensor, seed: int, batch: int, sigmas: Sequence[float] = SIGMAS) -> Iterator[Variant]:
    """Yield the subject with normal noise added to its images.

    It concerns the images whose predicted class stays: another class has another map.

    Args:
        logits: (B, classes), of the images.
        sigmas: standard deviations as shares of the range from black to white. The same noise is scaled by each.
    """
    noise = torch.randn(subject.images.shape, generator=torch.Generator().manual_seed(seed)).to(subject.images)
    levels = value_range(subject.classifier, subject.images)
    for sigma in sigmas:
        images = subject.images + sigma * levels * noise
        yield subject.variant(NOISE, f"sigma {sigma:g}", images=images, concerned=_same_class(subject, logits, images, batch))


def recompressed(subject: Subject, logits: Tensor, images: Tensor, batch: int, quality: int = QUALITY) -> Variant:
    """Return the subject with its photographs compressed once more.

    It concerns the images whose predicted class stays.

    Args:
        images: (B, C, H, W), prepared from `as_jpeg` of the photographs.
    """
    return subject.variant(JPEG, f"quality {quality}", images=images, concerned=_same_class(subject, logits, images, batch))


def as_jpeg(photograph: Photograph, quality: int = QUALITY) -> Image.Image | None:
    """Return a photograph as a JPEG of this quality shows it.

    None if it is no image of 8 bits in grey or RGB, which JPEG cannot store.
    """
    if not isinstance(photograph, Image.Image) or photograph.mode not in ("L", "RGB"):
        return None
    buffer = io.BytesIO()
    photograph.save(buffer, format="JPEG", quality=quality)
    buffer.seek(0)
    with Image.open(buffer, formats=["JPEG"]) as file:
        file.load()
        return file.copy()


def value_range(classifier: Classifier, images: Tensor) -> Tensor:
    """Return the distance from black to white in the images' values, (C or 1, 1, 1).

    Without a preprocess it is that of the images themselves.
    """
    if classifier.preprocess is None:
        return (images.amax() - images.amin()).reshape(1, 1, 1)
    low, high = classifier.preprocess.value_range
    return ((high - low) / torch.tensor(classifier.preprocess.std)).to(images)[:, None, None]


def _same_class(subject: Subject, logits: Tensor, images: Tensor, batch: int) -> Tensor | None:
    if subject.classifier.problem_type == "regression":
        return None
    return answers(subject.classifier, images, batch).argmax(1) == logits.argmax(1)
