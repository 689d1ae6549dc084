"""Subject of the sanity checks, and the variants that its maps are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hdm_core.classifier import Classifier


class LeftOutError(Exception):
    """A test that does not apply; the message says why."""


@dataclass(frozen=True)
class Subject:
    """Classifier, images and the classes that their maps explain.

    Attributes:
        images: (B, C, H, W), as the classifier's preprocess gives them.
        targets: (B,) int64.
        contrasts: (B,) int64, the class that each target is compared with; None for none.
    """

    classifier: Classifier
    images: Tensor
    targets: Tensor
    contrasts: Tensor | None = None

    def variant(self, test: str, stage: str, **changes: Any) -> Variant:
        """Return a variant of the subject with some of its fields changed."""
        same = {"classifier": self.classifier, "images": self.images, "targets": self.targets, "contrasts": self.contrasts}
        return Variant(test=test, stage=stage, **{**same, **changes})


@dataclass(frozen=True)
class Variant:
    """Subject of which one thing was changed, as a stage of a test.

    Attributes:
        test: id of the test, such as cascading.
        stage: what was changed, such as "1 of 6: classifier.1".
        classifier, images, targets, contrasts: as of the subject.
        seed: of the method's draws.
        concerned: (B,) bool, the images that the test is about; None for all. The others are predicted as another class.
        has_limit: false for a stage on the way, whose similarity may be anything.
    """

    test: str
    stage: str
    classifier: Classifier
    images: Tensor
    targets: Tensor
    contrasts: Tensor | None = None
    seed: int = 0
    concerned: Tensor | None = None
    has_limit: bool = True
