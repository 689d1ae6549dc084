"""`evaluate`: all metrics of a batch of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from hdm_core.batch_limit import BatchLimit
from hdm_core.checks.require import require, require_same_type
from hdm_core.classifier import Classifier, as_classifier
from hdm_core.device import default_batch
from hdm_core.integers import as_integer, as_integers
from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.ops import ranks
from hdm_core.metrics.base import Metric, MetricInput
from hdm_core.metrics.confidence import REMOVED
from hdm_core.metrics.curves import rise_blur
from hdm_core.metrics.registry import METRICS, chosen_metrics
from hdm_core.metrics.scale import Scale
from hdm_core.metrics.settings import MetricSettings
from hdm_core.metrics.views import Viewer, map_views, shared_views
from hdm_core.network.logits import require_classes
from hdm_core.settings import Baseline
from hdm_core.targets import Targets, contrasting, one_target, target_numbers


@dataclass(frozen=True)
class Metrics:
    """The metrics of N maps.

    Attributes:
        values: metric id -> (N,) float32 on the CPU; NaN where a metric does not apply.
        deletion: (N, points), the target's probability while pixels are removed; 101 points, or H + 1 for the protocol `rise`.
        insertion: (N, points), the same while they are inserted.
        by_baseline: baseline -> values with it. All of the above are of the first baseline; metrics of the map alone are equal for all.
            Without a metric that needs the network the curves have no points.
    """

    values: dict[str, Tensor]
    deletion: Tensor
    insertion: Tensor
    by_baseline: dict[Baseline, dict[str, Tensor]] = field(default_factory=dict)


def metric_forwards(height: int, width: int, settings: MetricSettings | None = None, maps: int = 1) -> int:
    """Return the forward passes that `evaluate` makes for one image with `maps` maps."""
    settings = settings or MetricSettings()
    chosen = [METRICS[name] for name in chosen_metrics(settings.names)]
    own = sum(metric.forwards(height, width) for metric in chosen)
    shared = sum(metric.forwards_per_image(height, width) for metric in chosen)
    if all(metric.map_only for metric in chosen):
        return shared + maps * own
    own += len(map_views(settings.protocol, height, width))
    shared += len(shared_views(settings.protocol, height, width))
    return len(settings.baselines) * (shared + maps * own)


def evaluate(
    classifier: Classifier | nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Targets = None,
    regions: Tensor | None = None,
    settings: MetricSettings | None = None,
    *,
    target: Targets = None,
    contrast: Tensor | Sequence[int] | None = None,
    index: Tensor | None = None,
    batch: int | BatchLimit | None = None,
) -> Metrics:
    """Measure how faithful maps are to a classifier.

    Of a regression, in place of a class's probability, the change of the output from the baseline counts, in units of the whole image's:
    (f(x) - f(baseline)) / (f(X) - f(baseline)).

    Args:
        classifier: a `Classifier`, or a plain network that maps images to logits.
        images: (B, C, H, W) as the classifier's preprocess gives them.
        maps: (N, H, W) in [0, 1].
        targets: the class that an image's maps explain: one for all, or one per image.
        regions: (B, H, W) bool, the evidence of an image; all false where unknown.
        settings: the metrics, their baselines and the protocol of the curves.
        target: another name of `targets`.
        contrast: (B,), the class that each target is compared with, such as `explanation.contrasts`. The probability is then that of
            the target rather than that class.
        index: (N,), the image that each map is of; one map per image, in order, if None. What maps of one image share is computed once.
        batch: upper limit of images per forward pass, as a number, or a limit that is shared with other calls; None leaves it to the
            device. If memory runs out, all is measured again with half of it.

    Raises:
        ValueError: if the shapes do not fit each other, no target is given, a metric is unknown, or the network's probabilities would
            be wrong, see `check`.

    Example:
        >>> import torch
        >>> from hdm_core import evaluate, explain
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.rand(2, 3, 16, 16)
        >>> explanation = explain(network, images, "grad_cam")
        >>> measured = evaluate(network, images, explanation.maps, explanation.targets)
        >>> measured.values["deletion_auc"].shape, measured.deletion.shape
        (torch.Size([2]), torch.Size([2, 101]))
    """
    classifier = as_classifier(classifier)
    settings = settings or MetricSettings()
    classes = _classes(classifier, one_target(target, targets), len(images))
    index = torch.arange(len(images)) if index is None else as_integers("index", index)
    _check_shapes(images, maps, classes, regions, index)
    require_same_type(classifier, images)
    limit = batch if isinstance(batch, BatchLimit) else BatchLimit(_batch_size(classifier, batch), "metrics")
    images, maps, index = (tensor.to(classifier.device) for tensor in (images, maps, index))
    known = limit.run(partial(require, classifier, images))
    require_classes(classes, known)
    if contrast is not None:
        others = as_integers("contrast", contrast)
        if others.shape != classes.shape:
            raise ValueError(f"contrast must have shape {tuple(classes.shape)}, not {tuple(others.shape)}")
        require_classes(others, known)
        classifier, classes = contrasting(classifier, classes, others)
    classes = classes.to(images.device)
    regions = torch.zeros_like(images[:, 0], dtype=torch.bool) if regions is None else regions.to(images.device)
    return limit.run(lambda size: _measure(classifier, images, maps, classes, regions, settings, index, size))


def _batch_size(classifier: Classifier, batch: int | None) -> int:
    return default_batch(classifier.device) if batch is None else as_integer("batch", batch)


def _measure(
    classifier: Classifier,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    regions: Tensor,
    settings: MetricSettings,
    index: Tensor,
    batch: int,
) -> Metrics:
    """Measure maps of images that are all on the device, `batch` views per forward."""
    chosen = chosen_metrics(settings.names)
    map_only = [name for name in chosen if METRICS[name].map_only]
    of_network = [name for name in chosen if name not in map_only]
    # Part by part and in half the bits: sorting all maps of a run's methods at once would need much memory.
    rank = torch.cat([ranks(part).int() for part in torch.split(maps, batch)]) if of_network else None
    # Folding compares the networks' outputs for an image, which metrics of the maps alone do not need.
    prepared = classifier.folded(images[:1]) if of_network else classifier.frozen()
    with torch.inference_mode(False), prepared as network, torch.no_grad():
        alone = [settings.alone(baseline) for baseline in settings.baselines]
        inputs = [_measured(classifier, network, images, maps, classes, regions, each, index, batch, rank) for each in alone]
        of_maps = {name: _values(METRICS[name], inputs[0]) for name in map_only}
        columns = [{name: _values(METRICS[name], measured) for name in of_network} | of_maps for measured in inputs]
    hosted = [_on_host({name: each[name] for name in chosen}, inputs[0].deletion, inputs[0].insertion) for each in columns]
    return replace(hosted[0], by_baseline={name: each.values for name, each in zip(settings.baselines, hosted, strict=True)})


def _measured(
    classifier: Classifier,
    network: nn.Module,
    images: Tensor,
    maps: Tensor,
    classes: Tensor,
    regions: Tensor,
    settings: MetricSettings,
    index: Tensor,
    batch: int,
    rank: Tensor | None,
) -> MetricInput:
    """Run the views of all maps with one baseline.

    Args:
        rank: (N, H, W), the pixels' ranks; None where only the maps are read: no view is made then.
    """
    if rank is None:
        nothing, deletion = torch.full_like(maps[:, 0, 0], torch.nan), maps.new_zeros(len(maps), 0)
        remaining, insertion, scale = dict.fromkeys(REMOVED, nothing), deletion, Scale(nothing, nothing)
        clean = blank = nothing[:, None]
    else:
        height, width = images.shape[-2:]
        baseline = baseline_image(settings.baseline, classifier, images)
        backgrounds = [baseline] if settings.protocol == "paper" else [baseline, rise_blur(images)]
        shared, own = (views(settings.protocol, height, width) for views in (shared_views, map_views))
        viewer = Viewer(network, images, classes, backgrounds, rank, index, batch, classifier.problem_type)
        of_images, of_maps = viewer.probabilities(shared, own)
        scale = Scale.of(classifier.problem_type, *of_images[:, :2].unbind(1))
        of_images, of_maps = scale.apply(of_images, torch.arange(len(images), device=index.device)), scale.apply(of_maps, index)
        clean, blank, start = (of_images[index, view][:, None] for view in (0, 1, -1))
        curve = (len(own) - len(REMOVED)) // 2
        deleted, inserted, remains = of_maps.tensor_split([curve, 2 * curve], dim=1)
        remaining = dict(zip(REMOVED, remains.unbind(1), strict=True))
        deletion, insertion = torch.cat([clean, deleted, blank], 1), torch.cat([start, inserted, clean], 1)
    return MetricInput(
        classifier=classifier,
        network=network,
        images=images,
        targets=classes,
        regions=regions,
        maps=maps,
        index=index,
        clean=clean[:, 0],
        blank=blank[:, 0],
        remaining=remaining,
        deletion=deletion,
        insertion=insertion,
        settings=settings,
        batch=batch,
        scale=scale,
    )


def _classes(classifier: Classifier, targets: Targets, images: int) -> Tensor:
    """Return the class of every image, (B,) int64."""
    if targets is None:
        raise ValueError("evaluate needs targets: the classes that the maps explain, such as explanation.targets")
    numbers = as_integers("targets", target_numbers(targets, classifier))
    return numbers if numbers.ndim else numbers.expand(images).clone()


def _check_shapes(images: Tensor, maps: Tensor, targets: Tensor, regions: Tensor | None, index: Tensor) -> None:
    sides = tuple(images.shape[-2:])
    expected = {"maps": (len(index), *sides), "regions": (len(images), *sides), "targets": (len(images),)}
    for (name, shape), tensor in zip(expected.items(), (maps, regions, targets), strict=True):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, not {tuple(tensor.shape)}")
    # torch would count a negative number from the end.
    if (wrong := index[(index < 0) | (index >= len(images))]).numel():
        raise ValueError(f"index {int(wrong[0])} is none of the {len(images)} images, which are numbered from 0")


def _on_host(values: dict[str, Tensor], deletion: Tensor, insertion: Tensor) -> Metrics:
    """Return the results on the CPU.

    They are copied at once: each copy makes the host wait for the device.
    """
    columns = torch.cat([*(column[:, None] for column in values.values()), deletion, insertion], 1).cpu()
    of_metrics, removed, inserted = (part.contiguous() for part in torch.split(columns, [len(values), *[deletion.shape[1]] * 2], 1))
    return Metrics({name: of_metrics[:, i].contiguous() for i, name in enumerate(values)}, removed, inserted)


def _values(metric: Metric, measured: MetricInput) -> Tensor:
    """Return a metric's values, (N,) float32 on the device of the maps.

    Raises:
        ValueError: if the metric does not give one value per map.
    """
    values = metric.compute(measured)
    if values.shape != measured.index.shape:
        raise ValueError(f"metric {metric.id} must give one value per map, {tuple(measured.index.shape)}, not {tuple(values.shape)}")
    return values.to(measured.maps.device, torch.float32)
