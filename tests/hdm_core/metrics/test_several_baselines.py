"""Several baselines in one call: the numbers of each alone, and metrics of the map only once."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from hdm_core import Classifier, MetricSettings, evaluate
from hdm_core.metrics.evaluate import metric_forwards
from hdm_core.testing.networks import normalised_network


def material() -> tuple[Classifier, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images, maps = torch.rand(2, 3, 16, 16, generator=generator), torch.rand(2, 16, 16, generator=generator)
    return Classifier.from_module(normalised_network()), images, maps, maps > 0.5


def test_each_baseline_has_the_numbers_that_it_has_alone() -> None:
    classifier, images, maps, regions = material()
    several = evaluate(classifier, images, maps, 1, regions, MetricSettings(baselines=("noise", "blur", "mean")))
    assert list(several.by_baseline) == ["noise", "blur", "mean"]
    for baseline, values in several.by_baseline.items():
        alone = evaluate(classifier, images, maps, 1, regions, MetricSettings(baseline=baseline))
        assert {name: column.tolist() for name, column in values.items()} == {
            name: column.tolist() for name, column in alone.values.items()
        }
    first = evaluate(classifier, images, maps, 1, regions, MetricSettings(baseline="noise"))
    assert torch.equal(several.deletion, first.deletion)
    assert several.values["deletion_auc"].tolist() == first.values["deletion_auc"].tolist()


def test_metrics_of_the_map_alone_make_no_pass_and_no_curves() -> None:
    classifier, images, maps, regions = material()
    settings = MetricSettings(names=("proportion",))
    calls = []
    classifier.module.register_forward_hook(lambda *_: calls.append(1))
    evaluate(classifier, images, maps, 1, regions)  # checks the classifier
    calls.clear()
    found = evaluate(classifier, images, maps, 1, regions, settings)
    assert not calls
    assert metric_forwards(16, 16, settings) == 0
    assert (found.deletion.shape, list(found.values)) == ((2, 0), ["proportion"])
    assert found.values["proportion"].tolist() == evaluate(classifier, images, maps, 1, regions).values["proportion"].tolist()


def test_every_baseline_costs_its_own_passes() -> None:
    one = metric_forwards(16, 16, MetricSettings(), 3)
    assert metric_forwards(16, 16, MetricSettings(baselines=("mean", "blur", "noise")), 3) == 3 * one


def test_one_baseline_is_written_either_way_and_keeps_the_identity() -> None:
    assert MetricSettings(baseline="blur") == MetricSettings(baselines=("blur",))
    assert MetricSettings(baseline="blur").identity() == {"baseline": "blur", "protocol": "paper"}
    assert MetricSettings(baselines=("blur", "mean")).baseline == "blur"
    assert MetricSettings(baselines=("blur", "mean")).identity()["baselines"] == ["blur", "mean"]
    assert MetricSettings.model_validate(MetricSettings(baselines=("blur", "mean")).model_dump()) == MetricSettings(
        baselines=("blur", "mean")
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"baselines": ("mean", "mean")}, "named twice: mean, mean"),
        ({"baselines": ()}, "at least 1 item"),
        ({"baseline": "mean", "baselines": ("blur",)}, "the first of metrics.baselines is blur: leave baseline out"),
        ({"baselines": ("white",)}, "'mean', 'black', 'blur' or 'noise'"),
    ],
)
def test_wrong_baselines_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MetricSettings.model_validate(settings)
