"""Every metric of the registry against the promises that ship in `hdm_core.testing`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hdm_core import METRICS, Classifier, Metric, MetricInput, evaluate
from hdm_core.metrics.evaluate import metric_forwards
from hdm_core.testing import METRIC_PROMISES, MetricCase, Promise, check_metric
from tests.support.tiny_networks import pictures, smooth


def _noise_drop(measured: MetricInput) -> Tensor:
    """The drop of the probability when the 10% most salient pixels are replaced by the image's mean: two passes of its own."""
    images = measured.images[measured.index]
    salient = measured.maps.flatten(1).quantile(0.9, dim=1)[:, None, None]
    hidden = torch.where((measured.maps >= salient)[:, None], images.mean((2, 3), keepdim=True), images)
    both = measured.probabilities(torch.cat([images, hidden]), measured.index.repeat(2))
    before, after = both.chunk(2)
    return (before - after).clamp(min=0)


NOISE_DROP = Metric(
    id="mean_drop",
    title="mean drop",
    definition="loss of the class's probability when the most salient 10% of the pixels become the image's mean",
    lower_is_better=False,
    compute=_noise_drop,
    forwards=lambda height, width: 2,
)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("promise", METRIC_PROMISES, ids=lambda promise: promise.name.replace(" ", "_"))
def test_the_metric_keeps_its_promise(promise: Promise[MetricCase], metric: str) -> None:
    promise.check(MetricCase(METRICS[metric]))


def test_a_metric_may_make_forward_passes_of_its_own() -> None:
    check_metric(NOISE_DROP)
    assert "mean_drop" not in METRICS


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (replace(NOISE_DROP, forwards=lambda height, width: 1), "the entries say how many forward passes are made"),
        (replace(NOISE_DROP, lower_is_better=True), "a map of the evidence is at least as good as its opposite"),
        (replace(NOISE_DROP, value_range=(-1.0, -0.5)), "every map has one value in the range or nan"),
        (replace(NOISE_DROP, needs_region=True), "regions count if and only if the entry needs them"),
        (replace(NOISE_DROP, map_only=True), "settings change nothing if the entry reads maps alone"),
        (replace(NOISE_DROP, compute=lambda measured: measured.clean / len(measured.index)), "a batch equals its singles"),
        (replace(NOISE_DROP, compute=lambda measured: measured.maps), "metric mean_drop must give one value per map"),
    ],
)
def test_a_broken_promise_is_reported_by_its_name(broken: Metric, promise: str) -> None:
    with pytest.raises(AssertionError, match=promise):
        check_metric(broken)


def test_a_registered_metric_is_measured_and_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    before = metric_forwards(16, 16, maps=3)
    monkeypatch.setitem(METRICS, "mean_drop", NOISE_DROP)
    images = pictures(2)
    found = evaluate(Classifier.from_module(smooth()), images, torch.rand(2, 16, 16), torch.tensor([0, 1]))
    assert list(found.values)[-1] == "mean_drop"
    assert found.values["mean_drop"].shape == (2,)
    assert metric_forwards(16, 16, maps=3) == before + 3 * 2
