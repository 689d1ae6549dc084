"""Metrics on the pretended GPU: the CPU's bits, on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hdm_core import Classifier, Metrics, MetricSettings, evaluate
from tests.support.pretended_gpu import pretended_gpu
from tests.support.tiny_networks import pictures, smooth

MAPS = torch.rand(5, 12, 12, generator=torch.Generator().manual_seed(0))
REGIONS = torch.zeros(3, 12, 12, dtype=torch.bool)
REGIONS[:2, 3:7, 2:9] = True


def measured(device: str, place: str, classes: int = 3, problem_type: Any = "single_label_classification", **options: Any) -> Metrics:
    """Evaluate on a device, of images and maps that are in another place."""
    classifier = Classifier.from_module(smooth(classes).to(device), problem_type=problem_type)
    count = len(options["index"]) if "index" in options else 3
    images, maps = (values.to(place) for values in (pictures(3, 12), MAPS[:count]))
    return evaluate(classifier, images, maps, options.pop("targets", [1, 0, 0]), REGIONS, batch=4, **options)


CASES: dict[str, dict[str, Any]] = {
    "one map per image": {},
    "several maps per image": {"index": torch.tensor([0, 2, 2, 1, 0])},
    "RISE's protocol": {"settings": MetricSettings(protocol="rise")},
    "RISE's protocol, several maps per image": {"settings": MetricSettings(protocol="rise"), "index": torch.tensor([0, 2, 2, 1, 0])},
    "blurred baseline": {"settings": MetricSettings(baseline="blur")},
    "every metric": {"settings": MetricSettings(names=("all",)), "index": torch.tensor([0, 2, 2, 1, 0])},
    "every metric, blurred baseline": {"settings": MetricSettings(names=("all",), baseline="blur", protocol="rise")},
    "every metric of contrasts": {"settings": MetricSettings(names=("all",)), "contrast": [2, 2, 1]},
    "contrasts": {"contrast": [2, 2, 1]},
    "yes and no": {"classes": 1, "problem_type": "multi_label_classification"},
    "labels": {"problem_type": "multi_label_classification"},
    "every metric of a regression": {
        "settings": MetricSettings(names=("all",)),
        "classes": 1,
        "problem_type": "regression",
        "targets": 0,
    },
    "regression": {"classes": 1, "problem_type": "regression", "targets": 0},
}


@pytest.mark.parametrize("place", ["cpu", "cuda"])
@pytest.mark.parametrize("case", CASES)
def test_metrics_have_the_bits_of_the_cpu(case: str, place: str) -> None:
    expected = measured("cpu", "cpu", **CASES[case])
    with pretended_gpu():
        found = measured("cuda", place, **CASES[case])
        assert {each.device.type for each in (found.deletion, found.insertion, *found.values.values())} == {"cpu"}
    assert found.values.keys() == expected.values.keys()
    for name, values in expected.values.items():
        torch.testing.assert_close(found.values[name], values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(found.deletion, expected.deletion, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(found.insertion, expected.insertion, rtol=0, atol=0, equal_nan=True)
