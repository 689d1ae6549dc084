from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hdm_core import METRICS, Classifier, MetricSettings, evaluate
from hdm_core.metrics.curves import Protocol, area
from hdm_core.metrics.localisation import proportion
from hdm_core.metrics.pixels import boundaries, ranks
from hdm_core.preprocess import Preprocess
from tests.support.tiny_networks import Linear, Pair, Untraceable, assert_unchanged, mixed_state, normalised, pictures, smooth, snapshot

HEIGHT, WIDTH = 7, 9  # 63 pixels, which 100 does not divide
WEIGHT = torch.linspace(-0.05, 0.09, 3 * HEIGHT * WIDTH).reshape(3, HEIGHT, WIDTH)


def half_up(share: Fraction, pixels: int) -> int:
    return math.floor(share * pixels + Fraction(1, 2))


def descending(saliency: Tensor) -> list[int]:
    """Sort pixels by falling saliency, the first in row order where it is equal."""
    values = saliency.flatten().tolist()
    return sorted(range(len(values)), key=lambda pixel: (-values[pixel], pixel))


def probability(image: Tensor, target: int, bias: float) -> float:
    """Return the softmax of logits 0 and w . x + bias, written as a logistic function."""
    score = float((image.double() * WEIGHT.double()).sum()) + bias
    return 1 / (1 + math.exp(-score if target == 1 else score))


def slow_metrics(
    image: Tensor, saliency: Tensor, target: int, baseline: Tensor, bias: float
) -> tuple[dict[str, float], list[float], list[float]]:
    order, pixels = descending(saliency), HEIGHT * WIDTH

    def shown(count: int, first: Tensor, rest: Tensor) -> float:
        """Take the first `count` pixels from one image and all others from another."""
        mixed = rest.clone().flatten(1)
        for pixel in order[:count]:
            mixed[:, pixel] = first.flatten(1)[:, pixel]
        return probability(mixed.reshape(image.shape), target, bias)

    removed = baseline.expand_as(image)
    clean = probability(image, target, bias)
    values = {}
    for share in (80, 70):
        kept = shown(half_up(1 - Fraction(share, 100), pixels), image, removed)
        values[f"average_drop_{share}"] = max(0.0, clean - kept) / clean
        values[f"increase_{share}"] = float(clean < kept)
    counts = [half_up(Fraction(i, 100), pixels) for i in range(101)]
    deletion = [shown(count, removed, image) for count in counts]
    insertion = [shown(count, image, removed) for count in counts]
    for name, curve in (("deletion_auc", deletion), ("insertion_auc", insertion)):
        values[name] = sum((left + right) / 2 for left, right in pairwise(curve)) / 100
    return values, deletion, insertion


def linear(bias: float = 0.3) -> Classifier:
    return Classifier.from_module(Linear(WEIGHT, bias), Preprocess(resize=9, crop=9))


def maps_for(images: Tensor, seed: int = 0) -> Tensor:
    return torch.rand(len(images), HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


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
    assert list(found.values) == list(METRICS)
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
    classifier = Classifier.from_module(Linear(torch.zeros(3, HEIGHT, WIDTH), bias=1.0))
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


# Which pixels


@given(st.integers(1, 100_000))
def test_the_boundaries_are_101_exactly_rounded_counts(pixels: int) -> None:
    found = boundaries(pixels)
    assert found == [half_up(Fraction(i, 100), pixels) for i in range(101)]
    assert found[0] == 0
    assert found[-1] == pixels
    steps = {after - before for before, after in pairwise(found)}
    assert max(steps) - min(steps) <= 1


@given(st.integers(1, 300), st.integers(1, 300))
def test_rises_boundaries_are_whole_rows(height: int, width: int) -> None:
    assert boundaries(height * width, height + 1) == list(range(0, height * width + 1, width))


@given(st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_ranks_are_a_stable_order(values: list[int]) -> None:
    maps = torch.tensor(values, dtype=torch.float32).reshape(1, 3, 4)
    found = ranks(maps).flatten().tolist()
    order = descending(maps)
    assert [found[pixel] for pixel in order] == list(range(12))


def test_ties_go_to_the_pixel_that_comes_first_in_row_order_also_in_large_maps() -> None:
    assert torch.equal(ranks(torch.zeros(2, 100, 90)), torch.arange(9000).reshape(1, 100, 90).expand(2, -1, -1))


@pytest.mark.parametrize(("height", "width"), [(7, 9), (5, 3), (10, 10), (16, 13)])
@pytest.mark.parametrize("flat", [True, False])
def test_k_pixels_are_exactly_k_pixels(height: int, width: int, flat: bool) -> None:
    """A network that counts the pixels shown: the logit is a thousandth of their number."""
    images = torch.ones(1, 1, height, width)
    maps = torch.ones(1, height, width) if flat else torch.rand(1, height, width, generator=torch.Generator().manual_seed(0))
    classifier = Classifier.from_module(Linear(torch.full((1, height, width), 1e-3)))
    found = evaluate(classifier, images, maps, torch.tensor([1]))

    def count(p: Tensor) -> list[int]:
        return (1000 * torch.logit(p.double())).round().int().flatten().tolist()

    total = height * width
    assert count(found.insertion) == boundaries(total)
    assert count(found.deletion) == [total - moved for moved in boundaries(total)]
    for removed in (80, 70):
        kept = found.deletion[:, 0] * (1 - found.values[f"average_drop_{removed}"])
        assert count(kept) == [half_up(1 - Fraction(removed, 100), total)]


@given(
    levels=st.lists(st.integers(0, 5), min_size=HEIGHT * WIDTH, max_size=HEIGHT * WIDTH),
    heights=st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6, unique=True),
    protocol=st.sampled_from(["paper", "rise"]),
)
def test_only_the_order_of_a_map_counts(levels: list[int], heights: list[float], protocol: Protocol) -> None:
    index = torch.tensor(levels).reshape(1, HEIGHT, WIDTH)
    both = torch.cat([index / 5, torch.tensor(sorted(heights))[index]])
    one = torch.zeros(2, dtype=torch.int64)
    settings = MetricSettings(protocol=protocol)
    found = evaluate(linear(), pictures(1, HEIGHT, WIDTH), both, torch.tensor([1]), settings=settings, index=one)
    for curve in (found.deletion, found.insertion, *(found.values[name] for name, metric in METRICS.items() if not metric.map_only)):
        assert torch.equal(curve[0], curve[1])


# Proportion


REGION = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
REGION[:, 2:5, 3:7] = True  # 12 of 63 pixels


def test_all_energy_inside_is_one_and_none_is_zero() -> None:
    inside = REGION.float() * maps_for(REGION)
    assert proportion(inside, REGION).tolist() == [1]
    assert proportion(maps_for(REGION) * ~REGION, REGION).tolist() == [0]


REGIONS = st.lists(st.booleans(), min_size=12, max_size=12).filter(any).map(lambda cells: torch.tensor(cells).reshape(1, 3, 4))


@given(REGIONS)
def test_a_map_that_is_the_region_has_proportion_one(region: Tensor) -> None:
    assert proportion(region.float(), region).tolist() == [1]


@given(REGIONS, st.floats(2**-10, 1, width=16))
def test_a_flat_map_has_the_regions_share_of_the_area(region: Tensor, value: float) -> None:
    assert float(proportion(torch.full((1, 3, 4), value), region)) == pytest.approx(float(region.float().mean()))


def test_proportion_by_hand_and_independent_of_scale() -> None:
    maps = torch.tensor([[[0.5, 0.25], [0.25, 1.0]]])
    region = torch.tensor([[[True, False], [True, False]]])
    assert proportion(maps, region).tolist() == [0.375]
    assert proportion(maps / 8, region).tolist() == [0.375]


@pytest.mark.parametrize("regions", [None, torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)])
def test_without_a_region_proportion_does_not_apply(regions: Tensor | None) -> None:
    images = pictures(2, HEIGHT, WIDTH)
    found = evaluate(linear(), images, maps_for(images), torch.tensor([0, 1]), regions)
    assert found.values["proportion"].isnan().all()
    assert not found.values["deletion_auc"].isnan().any()


def test_an_empty_region_says_nothing_about_its_neighbours() -> None:
    images = pictures(2, HEIGHT, WIDTH)
    regions = torch.cat([~REGION & REGION, REGION])
    found = evaluate(linear(), images, torch.ones(2, HEIGHT, WIDTH), torch.tensor([0, 1]), regions).values["proportion"]
    assert found[0].isnan()
    assert float(found[1]) == pytest.approx(12 / 63)


def test_a_map_without_energy_has_no_proportion() -> None:
    assert proportion(torch.zeros(1, HEIGHT, WIDTH), REGION).isnan().all()


# evaluate


def test_a_batch_equals_its_singles() -> None:
    images, targets = pictures(3, 16), torch.tensor([0, 2, 1])
    maps = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    regions = maps > 0.6
    classifier = Classifier.from_module(normalised())
    together = evaluate(classifier, images, maps, targets, regions)
    for b in range(3):
        one = slice(b, b + 1)
        alone = evaluate(classifier, images[one], maps[one], targets[one], regions[one])
        for name in METRICS:
            torch.testing.assert_close(together.values[name][one], alone.values[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("protocol", ["paper", "rise"])
def test_several_maps_of_an_image_are_measured_as_each_alone(protocol: Protocol) -> None:
    images, targets = pictures(2, 16, 12), torch.tensor([0, 2])
    maps, index = torch.rand(5, 16, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 0, 1, 1, 0])
    regions = torch.rand(2, 16, 12, generator=torch.Generator().manual_seed(1)) > 0.6
    classifier, settings = Classifier.from_module(normalised()), MetricSettings(protocol=protocol)
    together = evaluate(classifier, images, maps, targets, regions, settings, index=index, batch=5)
    for n, b in enumerate(index.tolist()):
        alone = evaluate(classifier, images[[b]], maps[[n]], targets[[b]], regions[[b]], settings)
        torch.testing.assert_close(together.deletion[[n]], alone.deletion, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.insertion[[n]], alone.insertion, rtol=1e-4, atol=1e-5)
        for name in METRICS:
            torch.testing.assert_close(together.values[name][[n]], alone.values[name], rtol=1e-4, atol=1e-5)


def test_no_batch_is_a_small_remainder() -> None:
    sizes: list[int] = []

    class Noting(Untraceable):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return super().forward(images)

    images = pictures(3, HEIGHT, WIDTH)
    classifier = Classifier.from_module(Noting(Linear(WEIGHT)))
    evaluate(classifier, images, maps_for(images), torch.tensor([0, 1, 0]), batch=64)
    probing, shown = sizes[:-10], sizes[-10:]  # 3 * (2 + 200) images
    assert set(probing) <= {1}
    assert shown == [61] * 6 + [60] * 4


def test_values_are_float32_on_the_cpu() -> None:
    images = pictures(2, HEIGHT, WIDTH)
    found = evaluate(linear(), images, maps_for(images), torch.tensor([0, 1]), REGION.expand(2, -1, -1))
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
