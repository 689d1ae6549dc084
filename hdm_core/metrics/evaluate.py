"""All metrics of maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.device import default_batch
from hdm_core.masking.baselines import baseline_image
from hdm_core.metrics.confidence import REMOVED, drop_and_increase
from hdm_core.metrics.curves import Protocol, area, rise_blur
from hdm_core.metrics.localisation import proportion
from hdm_core.metrics.pixels import ranks
from hdm_core.metrics.views import Viewer, map_views, shared_views
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
    protocol: Protocol = Field(
        "paper", description="paper: 101 points, from and to the baseline; rise: steps of W pixels, insertion from the blurred image"
    )


@dataclass(frozen=True)
class Metrics:
    """The metrics of N maps.

    Attributes:
        values: metric id -> (N,) float32 on the CPU; NaN where a metric does not apply.
        deletion: (N, points), the target's probability while pixels go; 101 points, or H + 1 for the protocol `rise`.
        insertion: (N, points), the same while they come.
    """

    values: dict[str, Tensor]
    deletion: Tensor
    insertion: Tensor


def metric_forwards(height: int, width: int, protocol: Protocol = "paper", maps: int = 1) -> int:
    """How many forward passes `evaluate` makes for an image of which there are so many maps."""
    return len(shared_views(protocol, height, width)) + maps * len(map_views(protocol, height, width))


def evaluate(
    classifier: Classifier,
    images: Tensor,
    maps: Tensor,
    targets: Tensor,
    regions: Tensor | None = None,
    settings: MetricSettings | None = None,
    *,
    index: Tensor | None = None,
    batch: int | None = None,
) -> Metrics:
    """Measures how faithful maps are to a classifier.

    Args:
        images: (B, C, H, W) as the classifier's preprocess gives them.
        maps: (N, H, W) in [0, 1].
        targets: (B,), the class that an image's maps explain.
        regions: (B, H, W) bool, where an image's evidence is; all false where unknown.
        index: (N,), the image that each map is of; one map an image, in order, if None. What maps of one image share is computed once.
        batch: how many images go through the network at once; None leaves it to the device.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    settings = settings or MetricSettings()
    index = torch.arange(len(images)) if index is None else index
    sides = tuple(images.shape[-2:])
    expected = {"maps": (len(index), *sides), "regions": (len(images), *sides), "targets": (len(images),)}
    for (name, shape), tensor in zip(expected.items(), (maps, regions, targets), strict=True):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, not {tuple(tensor.shape)}")
    batch = default_batch(classifier.device) if batch is None else batch
    images, maps, targets, index = (tensor.to(classifier.device) for tensor in (images, maps, targets, index))
    baseline = baseline_image(settings.baseline, classifier, images)
    grounds = [baseline] if settings.protocol == "paper" else [baseline, rise_blur(images)]
    # Part by part and in half the bits: sorting all maps of a run's methods at once would need much memory.
    rank = torch.cat([ranks(part).int() for part in torch.split(maps, batch)])
    shared, own = (views(settings.protocol, *sides) for views in (shared_views, map_views))
    with classifier.folded(images[:1]) as network, torch.no_grad():
        common, each = Viewer(network, images, targets, grounds, rank, index, batch).probabilities(shared, own)
    clean, blank, start = (common[index, view][:, None] for view in (0, 1, -1))
    going, coming, kept = each.tensor_split([(len(own) - len(REMOVED)) // 2, len(own) - len(REMOVED)], dim=1)
    deletion, insertion = torch.cat([clean, going, blank], 1), torch.cat([start, coming, clean], 1)
    drop, increase = drop_and_increase(clean, kept)
    values = {f"average_drop_{muted}": column for muted, column in zip(REMOVED, drop.unbind(1), strict=True)}
    values |= {f"increase_{muted}": column for muted, column in zip(REMOVED, increase.unbind(1), strict=True)}
    values |= {"deletion_auc": area(deletion), "insertion_auc": area(insertion)}
    where = torch.zeros_like(images[:, 0], dtype=torch.bool) if regions is None else regions.to(images.device)
    values["proportion"] = proportion(maps, where[index])
    return Metrics({name: values[name].cpu() for name in METRICS}, deletion.cpu(), insertion.cpu())
