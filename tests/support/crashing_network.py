"""A classifier that kills its process on one image, like a decoder or driver bug."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from hdm_core import Classifier
from pipeline.datasets.images import read_image
from pipeline.datasets.sample import Sample


class Deadly(Classifier):
    """Classifier that kills its process.

    Attributes:
        victim: path of the image that triggers it.
        armed: file without which nothing happens.
    """

    victim: str
    armed: Path

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        victim = read_image(Sample("victim", self.victim), {}, self.preprocess).image
        if self.armed.exists() and any(image.tobytes() == victim.tobytes() for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(images)


def network(picture: str, armed: str) -> Classifier:
    """Build MobileNetV2 with its ImageNet weights."""
    known = Classifier.from_torchvision("mobilenet_v2", "IMAGENET1K_V1")
    made = Deadly(known.module, known.preprocess, known.class_names, known.name)
    made.victim, made.armed = picture, Path(armed)
    return made
