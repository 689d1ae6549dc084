"""Metrics against other libraries: torch-cam, Captum, SciPy and scikit-learn."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hdm_core import Classifier, MetricSettings, evaluate
from hdm_core.metrics.correlation import spearman
from hdm_core.metrics.infidelity import squares
from hdm_core.metrics.pixel_ranking import average_precision
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import normalised, pictures

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by their imports
    import torchcam.methods as torchcam
    from captum.metrics import infidelity
    from scipy.stats import spearmanr
    from sklearn.metrics import average_precision_score
    from torchcam.metrics import ClassificationMetric

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("family", ["resnet", "mobilenet"])
def test_soft_drop_and_increase_are_torchcams(family: str) -> None:
    network, images = FAMILIES[family]().eval(), pictures(4, 64, seed=5)
    with torch.no_grad():
        network.get_submodule({"resnet": "fc", "mobilenet": "classifier.1"}[family]).weight.mul_(20)  # probabilities far from equal
        targets = network(images).argmax(1).tolist()
    with torchcam.GradCAM(network, {"resnet": "layer4", "mobilenet": "features"}[family]) as extractor:
        metric = ClassificationMetric(extractor, partial(torch.softmax, dim=-1))
        metric.update(images, targets)
        theirs = metric.summary()
        cams = extractor.fuse_cams(extractor(targets, network(images).softmax(1)))
    maps = F.interpolate(cams[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0].detach()
    settings = MetricSettings(names=("average_drop_soft", "increase_soft"))
    found = evaluate(Classifier.from_module(network), images, maps, targets, settings=settings).values
    assert metric.nan_count == 0
    assert float(found["average_drop_soft"].mean()) == pytest.approx(theirs["avg_drop"], abs=1e-5)
    assert float(found["increase_soft"].mean()) == theirs["conf_increase"]
    assert theirs["avg_drop"] > 0.01


def test_infidelity_is_captums() -> None:
    network, images, targets = normalised().eval(), pictures(2, 16, 12), [0, 2]
    maps = torch.rand(2, 16, 12, generator=torch.Generator().manual_seed(0))
    found = evaluate(Classifier.from_module(network), images, maps, targets, settings=MetricSettings(names=("infidelity",))).values
    masks = squares(16, 12)
    for b, target in enumerate(targets):

        def shown(mask: Tensor, image: Tensor = images[b], target: int = target) -> Tensor:
            return network(mask * image).softmax(1)[:, target]

        def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
            removed = masks[:, None].to(inputs.dtype)
            return removed, inputs - removed

        ones = torch.ones(1, 1, 16, 12)
        with torch.no_grad():
            theirs = infidelity(shown, perturb, ones, maps[b][None, None], n_perturb_samples=len(masks), normalize=True)
        assert float(found["infidelity"][b]) == pytest.approx(float(theirs), rel=1e-3, abs=1e-9)


def test_spearman_is_scipys() -> None:
    x, y = (torch.randint(0, 9, (20, 16), generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    for found, one, other in zip(spearman(x, y).tolist(), x, y, strict=True):
        assert found == pytest.approx(spearmanr(one.numpy(), other.numpy()).statistic)


def test_average_precision_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = (torch.rand(10, 12, 9, generator=generator) * torch.arange(2, 12)[:, None, None]).round()  # from three levels to twelve
    regions = torch.rand(10, 12, 9, generator=generator) > 0.8
    for found, saliency, region in zip(average_precision(maps, regions).tolist(), maps, regions, strict=True):
        assert found == pytest.approx(average_precision_score(region.flatten().numpy(), saliency.flatten().numpy()))
