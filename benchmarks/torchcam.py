"""Average drop and increase of torch-cam's maps and of ours, on one set of images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor, nn

from benchmarks.libraries import library
from benchmarks.pareto.photographs import SPLITS, evenly_spaced, split_by_confidence
from hdm_core import Classifier, evaluate, explain
from hdm_core.metrics import MetricSettings
from hdm_core.network.default_layer import default_layer
from pipeline.classifiers.load import load_classifier, preprocess_of
from pipeline.cli.console import err, out, print_json
from pipeline.cli.options import Json
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.datasets.batches import read_batches
from pipeline.errors import InputError

# Our method and torch-cam's class.
_PAIRS = {"grad_cam": "GradCAM", "grad_cam_pp": "GradCAMpp", "xgrad_cam": "XGradCAM", "layer_cam": "LayerCAM", "score_cam": "ScoreCAM"}
_METRICS = ("average_drop_soft", "increase_soft", "average_gain_soft")
_BATCH = 4


@dataclass(frozen=True)
class TorchCamRow:
    """Means of one method over the photographs.

    Attributes:
        torchcam_drop, torchcam_increase: by torch-cam's `ClassificationMetric` as its script calls it, which explains the softmax's output
            and not the logit; None where it has no such method.
        torchcam_flat: constant maps of torch-cam's; its metric counts each as a drop of 1, ours as no number.
        same_drop, same_increase: of the same maps by our soft metrics, in which a constant map is a drop of 1 and no increase, too.
        drop, increase, gain: of our maps, which explain the logit, by our soft metrics.
        map_difference: largest absolute difference of a pixel between torch-cam's map of the logit and ours.
        flat: maps of ours that are constant and in no mean.
    """

    method: str
    images: int
    torchcam_drop: float | None
    torchcam_increase: float | None
    torchcam_flat: int | None
    same_drop: float | None
    same_increase: float | None
    drop: float
    increase: float
    gain: float
    map_difference: float | None
    flat: int


def torchcam(
    config: Annotated[str, typer.Argument(help="configuration whose dataset and classifier are used")],
    split: Annotated[str, typer.Option(help="half of the photographs: choose or report")] = "report",
    photographs: Annotated[int, typer.Option(min=2, help="photographs, spread over the classifier's confidence")] = 50,
    method: Annotated[list[str] | None, typer.Option(help="method, repeatable; torch-cam's and `hdm` by default")] = None,
    as_json: Json = False,
) -> None:
    """Compare average drop and increase of softly masked photographs with torch-cam's."""
    if split not in SPLITS:
        raise InputError(f"--split {split}: choose from {', '.join(SPLITS)}")
    rows = bench_torchcam(load_config(config), split, photographs, method or [*_PAIRS, "hdm"])
    if as_json:
        print_json({"torchcam": [asdict(row) for row in rows]})
        return
    table = Table(*rows[0].__dataclass_fields__, box=None)
    for row in rows:
        table.add_row(
            *("-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in asdict(row).values())
        )
    out.print(table)


def _text(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def bench_torchcam(config: RunConfig, split: str, count: int, methods: list[str]) -> list[TorchCamRow]:
    """Compare methods on photographs of a dataset, for the predicted class.

    Raises:
        InputError: if the dataset or the classifier cannot be used, has too few photographs, or torch-cam is not installed.
    """
    samples = [photograph.sample for photograph in evenly_spaced(split_by_confidence(config)[split], count)]
    classifier = load_classifier(config.classifier, config.seed)
    batches = read_batches(samples, config.storage, preprocess_of(classifier), _BATCH, timeout=config.compute.storage_timeout)
    images = torch.cat([batch.images for batch in batches if batch.images is not None])
    rows = []
    for method in methods:
        err.print(f"{method}: {len(images)} photographs ...", markup=False)
        rows.append(_compare(classifier, images, method))
    return rows


def _compare(classifier: Classifier, images: Tensor, method: str) -> TorchCamRow:
    theirs = _Theirs.of(classifier, images, _PAIRS[method]) if method in _PAIRS else None
    ours: list[dict[str, Tensor]] = []
    same: list[dict[str, Tensor]] = []
    difference, flat = 0.0, 0
    for part in torch.split(images, _BATCH):
        explanation = explain(classifier, part, method)
        flat += sum(status != "ok" for status in explanation.status)
        ours.append(_measure(classifier, part, explanation.maps, explanation.targets))
        if theirs is not None:
            theirs.metric.update(part)
            same.append(_measure(classifier, part, theirs.maps(part, of_probability=True), explanation.targets))
            difference = max(difference, float((theirs.maps(part) - explanation.maps).abs().max()))
    drop, increase, gain = (_mean(ours, name) for name in _METRICS)
    if theirs is None:
        return TorchCamRow(method, len(images), None, None, None, None, None, drop, increase, gain, None, flat)
    summary = theirs.metric.summary()
    theirs.extractor.remove_hooks()
    drops, increases = (torch.cat([values[name] for values in same]) for name in _METRICS[:2])
    their_numbers = summary["avg_drop"], summary["conf_increase"], int(drops.isnan().sum())
    same_numbers = float(drops.nan_to_num(1.0).mean()), float(increases.nan_to_num(0.0).mean())
    return TorchCamRow(method, len(images), *their_numbers, *same_numbers, drop, increase, gain, difference, flat)


def _measure(classifier: Classifier, images: Tensor, maps: Tensor, targets: Tensor) -> dict[str, Tensor]:
    return evaluate(classifier, images, maps, targets, settings=MetricSettings(names=_METRICS)).values


def _mean(measured: list[dict[str, Tensor]], name: str) -> float:
    return float(torch.cat([values[name] for values in measured]).nanmean())


@dataclass(frozen=True)
class _Theirs:
    """torch-cam's extractor at the layer that ours takes, and its metric."""

    network: nn.Module
    extractor: Any
    metric: Any

    @classmethod
    def of(cls, classifier: Classifier, images: Tensor, kind: str) -> _Theirs:
        with classifier.frozen() as network:
            layer = default_layer(network, images).module
        extractor = getattr(library("torchcam.methods"), kind)(classifier.module, layer)
        return cls(
            classifier.module, extractor, library("torchcam.metrics").ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
        )

    def maps(self, images: Tensor, of_probability: bool = False) -> Tensor:
        """Return maps of the predicted classes at the images' size, (B, H, W)."""
        logits = self.network(images)
        (maps,) = self.extractor(logits.argmax(1).tolist(), logits.softmax(1) if of_probability else logits)
        resized: Tensor = nn.functional.interpolate(maps[:, None].float(), images.shape[2:], mode="bilinear")[:, 0]
        return resized.detach()
