"""All metrics of a batch of maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.baselines import masked_pixels
from hdm_core.classifier import Classifier
from hdm_core.device import default_batch
from hdm_core.logits import class_logits
from hdm_core.metrics.confidence import drop_and_increase
from hdm_core.metrics.curves import area, deletion_and_insertion
from hdm_core.metrics.localisation import proportion
from hdm_core.metrics.pixels import boundaries, ranks
from hdm_core.settings import Baseline, Settings

# id -> whether less is better
METRICS: dict[str, bool] = {
    "average_drop_80": True,
    "average_drop_70": True,
    "increase_80": False,
    "increase_70": False,
    "deletion_auc": True,
    "insertion_auc": False,
    "proportion": False,
}


class MetricSettings(Settings):
    """How maps are measured."""

    baseline: Baseline = Field("mean", description="what a muted pixel becomes")
    protocol: Literal["paper"] = Field("paper", description="101 points of one per cent each, from and to the baseline")


@dataclass(frozen=True)
class Metrics:
    """The metrics of B maps.

    Attributes:
        values: metric id -> (B,) float32 on the CPU; NaN where a metric does not apply.
        deletion: (B, 101), the target's probability while pixels go.
        insertion: (B, 101), the same while they come.
    """

    values: dict[str, Tensor]
    deletion: Tensor
    insertion: Tensor


def metric_forwards(height: int, width: int) -> int:
    """How many forward passes `evaluate` makes for a map: the clean and the blank image, two shares of pixels, both curves between."""
    return 4 + 2 * (len(boundaries(height * width)) - 2)


def evaluate(
    classifier: Classifier,
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    regions: Tensor | None = None,
    settings: MetricSettings | None = None,
    *,
    batch: int | None = None,
) -> Metrics:
    """Measures how faithful maps are to a classifier.

    Args:
        images: (B, C, H, W) as the classifier's preprocess gives them.
        maps: (B, H, W) in [0, 1].
        targets: (B,), the class that each map explains.
        regions: (B, H, W) bool, where the evidence is; all false where unknown.
        batch: how many images go through the network at once; None leaves it to the device.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    settings = settings or MetricSettings()
    each = (len(images), *images.shape[-2:])
    for name, tensor, expected in (("maps", maps, each), ("regions", regions, each), ("targets", targets, each[:1])):
        if tensor is not None and tensor.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, not {tuple(tensor.shape)}")
    batch = default_batch(classifier.device) if batch is None else batch
    images, maps, targets = (tensor.to(classifier.device) for tensor in (images, maps, targets))
    baseline = masked_pixels(settings.baseline, classifier, images)
    with classifier.folded(images[:1]) as network, torch.no_grad():

        def probability(pictures: Tensor, image: Tensor) -> Tensor:
            parts = zip(torch.split(pictures, batch), torch.split(targets[image], batch), strict=True)
            return torch.cat([class_logits(network, part).float().softmax(1).gather(1, p[:, None])[:, 0] for part, p in parts])

        rank = ranks(maps)
        clean = probability(images, torch.arange(len(images), device=images.device))
        values = {}
        for muted in (80, 70):
            drop, increase = drop_and_increase(probability, images, rank, baseline, clean, muted / 100)
            values[f"average_drop_{muted}"], values[f"increase_{muted}"] = drop, increase
        deletion, insertion = deletion_and_insertion(probability, images, rank, baseline, clean, batch)
        values["deletion_auc"], values["insertion_auc"] = area(deletion), area(insertion)
        where = torch.zeros_like(maps, dtype=torch.bool) if regions is None else regions.to(maps.device)
        values["proportion"] = proportion(maps, where)
    return Metrics({name: values[name].cpu() for name in METRICS}, deletion.cpu(), insertion.cpu())
