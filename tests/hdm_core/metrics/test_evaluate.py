from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hdm_core import METRICS, Classifier, MetricSettings, evaluate
from hdm_core.metrics.curves import Protocol, area
from hdm_core.metrics.registry import chosen_metrics
from tests.support.slow_metrics import HEIGHT, REGION, WEIGHT, WIDTH, linear, maps_for, probability, slow_metrics
from tests.support.tiny_networks import Linear, Pair, Untraceable, assert_unchanged, mixed_state, normalised, pictures, smooth, snapshot

# Every metric against a slow one


@pytest.mark.parametrize("baseline", ["mean", "black"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_drop_increase_deletion_and_insertion_are_the_slow_ones(baseline: str, batch: int) -> None:
    images, targets = 3 * pictures(4, HEIGHT, WIDTH), torch.tensor([0, 1, 1, 0])
    maps = maps_for(images)
    maps[2] = (maps[2] * 4).round() / 4  # with ties
    classifier = linear()
    found = evaluate(classifier, images, maps, targets, settings=MetricSettings(baseline=baseline), batch=batch)
    removed = torch.zeros(3, 1, 1) if baseline == "mean" else classifier.preprocess.black()
    assert list(found.values) == chosen_metrics(None)
    for b in range(4):
        values, deletion, insertion = slow_metrics(images[b], maps[b], int(targets[b]), removed, 0.3)
        for name, value in values.items():
            assert float(found.values[name][b]) == pytest.approx(value, abs=2e-6), name
        assert found.deletion[b].tolist() == pytest.approx(deletion, abs=2e-6)
        assert found.insertion[b].tolist() == pytest.approx(insertion, abs=2e-6)


def test_drop_and_increase_by_hand() -> None:
    # Ten pixels of one channel; class 1 has the logit of their sum. The two most salient hold ln 3 in all, the three most ln 9.
    ln3 = math.log(3)
    image = torch.tensor([ln3, 0.0, ln3, 0, 0, 0, 0, 0, 0, -ln3]).reshape(1, 1, 2, 5)
    saliency = torch.arange(10.0, 0, -1).reshape(1, 2, 5) / 10
    classifier = Classifier.from_module(Linear(torch.ones(1, 2, 5)))
    found = evaluate(classifier, image, saliency, torch.tensor([1])).values
    # Y = 3 / 4; O = 3 / 4 with 20 % shown, 9 / 10 with 30 %.
    assert float(found["average_drop_80"]) == pytest.approx(0, abs=1e-6)
    assert float(found["average_drop_70"]) == 0
    assert float(found["increase_70"]) == 1
    found = evaluate(classifier, image, saliency, torch.tensor([0])).values
    # For class 0: Y = 1 / 4, O = 1 / 10 with 30 %: a drop of 3 / 5.
    assert float(found["average_drop_70"]) == pytest.approx(0.6)
    assert float(found["increase_70"]) == 0


def test_a_probability_that_stays_is_no_increase() -> None:
    classifier = Classifier.from_module(Linear(torch.zeros(3, HEIGHT, WIDTH), bias=1.5))
    found = evaluate(classifier, pictures(2, HEIGHT, WIDTH), maps_for(torch.zeros(2)), torch.tensor([1, 0])).values
    for name in ("average_drop_80", "average_drop_70", "increase_80", "increase_70"):
        assert torch.equal(found[name], torch.zeros(2))


def test_a_constant_curve_has_its_value_for_its_area() -> None:
    classifier = Classifier.from_module(Linear(torch.zeros(3, HEIGHT, WIDTH), bias=math.log(3)))
    found = evaluate(classifier, pictures(1, HEIGHT, WIDTH), maps_for(torch.zeros(1)), torch.tensor([1])).values
    assert float(found["deletion_auc"]) == pytest.approx(0.75)
    assert float(found["insertion_auc"]) == pytest.approx(0.75)


def test_the_area_of_a_straight_line_and_of_a_step() -> None:
    line = torch.linspace(0, 1, 101)
    step = torch.zeros(101)
    step[51:] = 1
    assert area(torch.stack([line, step, torch.ones(101)])).tolist() == pytest.approx([0.5, 0.495, 1.0])


def test_curves_begin_and_end_where_they_must() -> None:
    images, targets = pictures(2, HEIGHT, WIDTH), torch.tensor([1, 0])
    found = evaluate(linear(), images, maps_for(images), targets)
    clean = torch.tensor([probability(image, int(target), 0.3) for image, target in zip(images, targets, strict=True)])
    blank = torch.tensor([probability(0 * image, int(target), 0.3) for image, target in zip(images, targets, strict=True)])
    assert found.deletion.shape == found.insertion.shape == (2, 101)
    torch.testing.assert_close(found.deletion[:, 0], clean)
    torch.testing.assert_close(found.insertion[:, -1], clean)
    torch.testing.assert_close(found.deletion[:, -1], blank)
    torch.testing.assert_close(found.insertion[:, 0], blank)


def test_what_deletion_takes_insertion_of_the_reversed_map_leaves() -> None:
    images, targets = pictures(2, 10, 10), torch.tensor([1, 0])
    maps = torch.randperm(100, generator=torch.Generator().manual_seed(0)).reshape(1, 10, 10).expand(2, -1, -1) / 99
    classifier = Classifier.from_module(smooth())
    there, back = evaluate(classifier, images, maps, targets), evaluate(classifier, images, 1 - maps, targets)
    torch.testing.assert_close(there.deletion, back.insertion.flip(1), rtol=0, atol=1e-6)


# evaluate


def test_a_batch_equals_its_singles() -> None:
    images, targets = pictures(3, 16), torch.tensor([0, 2, 1])
    maps = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    regions = maps > 0.6
    classifier = Classifier.from_module(normalised())
    settings = MetricSettings(names=("all",))
    together = evaluate(classifier, images, maps, targets, regions, settings)
    for b in range(3):
        one = slice(b, b + 1)
        alone = evaluate(classifier, images[one], maps[one], targets[one], regions[one], settings)
        for name in METRICS:
            torch.testing.assert_close(together.values[name][one], alone.values[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("protocol", ["paper", "rise"])
def test_several_maps_of_an_image_are_measured_as_each_alone(protocol: Protocol) -> None:
    images, targets = pictures(2, 16, 12), torch.tensor([0, 2])
    maps, index = torch.rand(5, 16, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0, 1, 1, 0])
    regions = torch.rand(2, 16, 12, generator=torch.Generator().manual_seed(1)) > 0.6
    classifier, settings = Classifier.from_module(normalised()), MetricSettings(protocol=protocol, names=("all",))
    together = evaluate(classifier, images, maps, targets, regions, settings, index=index, batch=5)
    for n, b in enumerate(index.tolist()):
        alone = evaluate(classifier, images[[b]], maps[[n]], targets[[b]], regions[[b]], settings)
        torch.testing.assert_close(together.deletion[[n]], alone.deletion, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.insertion[[n]], alone.insertion, rtol=1e-4, atol=1e-5)
        for name in METRICS:
            torch.testing.assert_close(together.values[name][[n]], alone.values[name], rtol=1e-4, atol=1e-5, equal_nan=True)


def test_no_batch_is_a_small_remainder() -> None:
    sizes: list[int] = []

    class Noting(Untraceable):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return super().forward(images)

    images = pictures(3, HEIGHT, WIDTH)
    classifier = Classifier.from_module(Noting(Linear(WEIGHT)))
    for _ in range(2):  # the first call also checks the network
        sizes.clear()
        evaluate(classifier, images, maps_for(images), torch.tensor([0, 1, 0]), batch=64)
    probing, shown = sizes[:-10], sizes[-10:]  # 3 * (2 + 200) images
    assert set(probing) <= {1}
    assert shown == [61] * 6 + [60] * 4


def test_values_are_float32_on_the_cpu() -> None:
    images = pictures(2, HEIGHT, WIDTH)
    found = evaluate(linear(), images, maps_for(images), torch.tensor([0, 1]), REGION.expand(2, -1, -1), MetricSettings(names=("all",)))
    for name in METRICS:
        assert found.values[name].shape == (2,)
        assert found.values[name].dtype == torch.float32
        assert found.values[name].device.type == "cpu"


def test_the_network_is_left_as_it_was_and_so_is_the_input() -> None:
    network, images = mixed_state(), pictures(2)
    before, pixels, maps = snapshot(network), images.clone(), torch.rand(2, 16, 16)
    evaluate(Classifier.from_module(network), images, maps, torch.tensor([0, 1]))
    assert_unchanged(network, before)
    assert torch.equal(images, pixels)
    broken = Pair(network)
    before = snapshot(broken)
    with pytest.raises(TypeError, match="must return logits"):
        evaluate(Classifier.from_module(broken), images, maps, torch.tensor([0, 1]))
    assert_unchanged(broken, before)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("maps", {"maps": torch.zeros(2, 9, 7)}),
        ("maps", {"maps": torch.zeros(1, 7, 9)}),
        ("maps", {"maps": torch.zeros(2, 1, 7, 9)}),
        ("regions", {"regions": torch.ones(1, 7, 9, dtype=torch.bool)}),
        ("targets", {"targets": torch.tensor([0, 1, 1])}),
        ("targets", {"targets": torch.tensor([0])}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name: str, changed: dict[str, Tensor]) -> None:
    images = pictures(2, 7, 9)
    arguments = {"images": images, "maps": torch.zeros(2, 7, 9), "targets": torch.tensor([0, 1]), **changed}
    with pytest.raises(ValueError, match=f"{name} must have shape"):
        evaluate(linear(), **arguments)


@pytest.mark.parametrize(("target", "contrast"), [([0, 9], None), ([-1, 0], None), ([0, 1], [1, 9])])
def test_targets_that_are_no_class_are_refused(target: list[int], contrast: list[int] | None) -> None:
    images, maps = pictures(2, 7, 9), torch.zeros(2, 7, 9)
    with pytest.raises(ValueError, match=r"target (9|-1) is no class of this network: it has \d, numbered from 0"):
        evaluate(linear(), images, maps, target, contrast=contrast)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="baseline"):
        MetricSettings(baseline="white")
    with pytest.raises(ValueError, match="extra"):
        MetricSettings(points=11)


def test_an_impossible_class_has_no_drop() -> None:
    # Softmax underflows to 0: a share of nothing is not defined.
    classifier = Classifier.from_module(Linear(torch.ones(3, HEIGHT, WIDTH), bias=1000.0))
    found = evaluate(classifier, torch.zeros(1, 3, HEIGHT, WIDTH), maps_for(torch.zeros(1)), torch.tensor([0])).values
    assert found["average_drop_80"].isnan().all()
    assert float(found["increase_80"]) == 0
