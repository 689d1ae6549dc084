"""Metrics as entries of a registry: id, texts, direction and one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.masking.baselines import baseline_image
from hdm_core.metrics.forward import even_parts, target_probability
from hdm_core.metrics.scale import Scale
from hdm_core.metrics.settings import MetricSettings, Protocol
from hdm_core.network.logits import class_logits


def ranks_pixels(maps: Tensor) -> Tensor:
    """Return the maps in which some pixel is more salient than another.

    Those without, which are constant, and those with a NaN have no number: a metric would read the order of the pixels' places.

    Args:
        maps: (N, H, W) -> (N,) bool.
    """
    return maps.amax((1, 2)) > maps.amin((1, 2))


@dataclass(frozen=True)
class MetricInput:
    """N maps of B images and the measurements of `evaluate`, on one device.

    Attributes:
        classifier: the classifier that was explained.
        network: its network, frozen and folded; images (M, C, H, W) -> logits (M, classes). Gradients are off.
        images: (B, C, H, W).
        targets: (B,) int64, the class that an image's maps explain.
        regions: (B, H, W) bool, the image's evidence; all false where it is unknown.
        maps: (N, H, W) in [0, 1].
        index: (N,) int64, the image of each map.
        clean: (N,), the target's probability for the whole image.
        blank: (N,), the same for the baseline.
        remaining: per cent of the pixels removed -> (N,), the probability when only the most salient pixels are shown.
        deletion: (N, points), the probability while pixels are removed, the most salient first.
        insertion: (N, points), the probability while they are inserted.
        settings: the baseline and the protocol.
        batch: upper limit of images per forward pass.
        scale: of the scores; of a regression, every probability above is a relative change of the output.
    """

    classifier: Classifier
    network: nn.Module
    images: Tensor
    targets: Tensor
    regions: Tensor
    maps: Tensor
    index: Tensor
    clean: Tensor
    blank: Tensor
    remaining: Mapping[int, Tensor]
    deletion: Tensor
    insertion: Tensor
    settings: MetricSettings
    batch: int
    scale: Scale

    @property
    def map_regions(self) -> Tensor:
        """Regions of the maps' images: (N, H, W) bool."""
        return self.regions[self.index]

    def unless_flat(self, values: Tensor) -> Tensor:
        """Return values (N,), NaN where a map is constant or has a NaN."""
        return torch.where(ranks_pixels(self.maps), values, torch.nan)

    def probabilities(self, images: Tensor, index: Tensor) -> Tensor:
        """Return the targets' probabilities (M,) for a metric's own images.

        A metric that calls this declares in its entry how many forward passes per map it makes.

        Args:
            images: (M, C, H, W).
            index: (M,), the image of the batch that each was made from, whose target counts.
        """
        parts = even_parts(len(images), self.batch)
        problem_type = self.classifier.problem_type
        scores = [target_probability(self.network, images[part], self.targets[index[part]], problem_type) for part in parts]
        return self.scale.apply(torch.cat(scores), index)

    def logits(self, images: Tensor, index: Tensor) -> Tensor:
        """Return the targets' logits (M,) for a metric's own images.

        Those of a regression are its outputs, on the scale of the probabilities.

        Args:
            images: (M, C, H, W).
            index: (M,), the image of the batch that each was made from, whose target counts.
        """
        parts = even_parts(len(images), self.batch)
        logits = [class_logits(self.network, images[part]).float().gather(1, self.targets[index[part], None])[:, 0] for part in parts]
        scores = torch.cat(logits)
        return self.scale.apply(scores, index) if self.classifier.problem_type == "regression" else scores

    def baseline(self) -> Tensor:
        """Return what replaces a removed pixel, broadcastable to the images."""
        return baseline_image(self.settings.baseline, self.classifier, self.images)


@dataclass(frozen=True)
class Metric:
    """An entry of the registry of metrics.

    Attributes:
        id: the column of the records.
        title: the head of a table's column, short.
        definition: one sentence without a full stop, for the report page.
        lower_is_better: the direction.
        compute: the metric of N maps, (N,); NaN where it does not apply.
        needs_region: it applies only where the image's evidence is known.
        map_only: it reads the map and the region alone, so that `MetricSettings` do not change it.
        forwards: height, width -> the metric's own forward passes per map.
        forwards_per_image: the same per image, however many maps it has.
        value_range: the least and the largest value.
        on_request: it is measured only where the settings name it; the metrics of the paper are measured by default.
        protocols: those of the curves under which it is defined; it is NaN under the others.
    """

    id: str
    title: str
    definition: str
    lower_is_better: bool
    compute: Callable[[MetricInput], Tensor]
    needs_region: bool = False
    map_only: bool = False
    forwards: Callable[[int, int], int] = lambda height, width: 0
    forwards_per_image: Callable[[int, int], int] = lambda height, width: 0
    value_range: tuple[float, float] = (0.0, 1.0)
    on_request: bool = False
    protocols: tuple[Protocol, ...] = ("paper", "rise")

    @property
    def arrow(self) -> str:
        """Direction as tables show it: ↓ where less is better, else ↑."""
        return "↓" if self.lower_is_better else "↑"
