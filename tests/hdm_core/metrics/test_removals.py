"""Metrics that remove cells and squares: against loops, and by hand."""

from __future__ import annotations

from itertools import product
from statistics import fmean

import pytest
import torch
from torch import Tensor

from hdm_core import Classifier, MetricSettings, evaluate
from hdm_core.metrics.correlation import average_ranks, pearson, spearman
from hdm_core.metrics.evaluate import metric_forwards
from hdm_core.metrics.infidelity import infidelity, squares
from hdm_core.metrics.removal import grid
from hdm_core.metrics.sensitivity_n import cell_sets
from tests.support.slow_metrics import HEIGHT, WEIGHT, WIDTH, linear, maps_for, probability
from tests.support.tiny_networks import Linear, pictures

NAMES = ("sensitivity_cells", "sensitivity_n", "infidelity")


def slow_pearson(x: list[float], y: list[float]) -> float:
    x, y = ([value - fmean(values) for value in values] for values in (x, y))
    return sum(a * b for a, b in zip(x, y, strict=True)) / (sum(a * a for a in x) * sum(b * b for b in y)) ** 0.5


def slow_ranks(values: list[float]) -> list[float]:
    return [fmean(i for i, other in enumerate(sorted(values)) if other == value) for value in values]


def without(image: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, torch.zeros(3, 1, 1), image)


def measured(names: tuple[str, ...], **options: object) -> tuple[Tensor, Tensor, list[int], list[int], dict[str, Tensor]]:
    images, targets, index = 3 * pictures(2, HEIGHT, WIDTH), [0, 1], [0, 1, 1, 0]
    maps = maps_for(torch.zeros(4))
    values = evaluate(linear(), images, maps, targets, settings=MetricSettings(names=names), index=index, batch=7, **options).values
    return images, maps, targets, index, values


def test_sensitivity_of_cells_is_the_slow_one() -> None:
    images, maps, targets, index, values = measured(NAMES)
    rows, columns = ([position * 4 // side for position in range(side)] for side in (HEIGHT, WIDTH))
    for n, b in enumerate(index):
        sums, falls = [], []
        for i, j in product(range(4), repeat=2):
            cell = torch.tensor([[row == i and column == j for column in columns] for row in rows])
            sums.append(float(maps[n].double()[cell].sum()))
            logit = float((without(images[b], cell).double() * WEIGHT.double()).sum())
            falls.append(-logit if targets[b] == 1 else 0.0)  # class 0 has the logit 0
        if targets[b] == 0:
            assert values["sensitivity_cells"][n].isnan(), "a logit that never changes has no ranks"
        else:
            expected = slow_pearson(slow_ranks(sums), slow_ranks(falls))
            assert float(values["sensitivity_cells"][n]) == pytest.approx(expected, abs=1e-6)


def test_sensitivity_n_and_infidelity_are_the_slow_ones() -> None:
    images, maps, targets, index, values = measured(NAMES)
    for name, masks in (("sensitivity_n", cell_sets(HEIGHT, WIDTH)), ("infidelity", squares(HEIGHT, WIDTH))):
        for n, b in enumerate(index):
            clean = probability(images[b], targets[b], 0.3)
            falls = [clean - probability(without(images[b], mask), targets[b], 0.3) for mask in masks]
            sums = [float(maps[n].double()[mask].sum()) for mask in masks]
            if name == "sensitivity_n":
                expected = slow_pearson(sums, falls)
            else:
                beta = sum(s * f for s, f in zip(sums, falls, strict=True)) / sum(s * s for s in sums)
                expected = fmean((beta * s - f) ** 2 for s, f in zip(sums, falls, strict=True))
            assert float(values[name][n]) == pytest.approx(expected, abs=1e-5), name


def test_a_map_of_the_exact_effects_is_perfect() -> None:
    # A logit that is the sum of the pixels, and a map that is the image.
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    classifier = Classifier.from_module(Linear(torch.full((1, 16, 16), 1e-4)))
    found = evaluate(classifier, image, image[:, 0], [1], settings=MetricSettings(names=NAMES)).values
    assert float(found["sensitivity_cells"]) == pytest.approx(1)
    assert float(found["sensitivity_n"]) == pytest.approx(1, abs=1e-3)  # a probability is not quite linear
    assert float(found["infidelity"]) == pytest.approx(0, abs=1e-9)
    opposite = evaluate(classifier, image, 1 - image[:, 0], [1], settings=MetricSettings(names=NAMES)).values
    assert float(opposite["sensitivity_cells"]) == pytest.approx(-1)


def test_passes_are_per_image_however_many_maps_it_has() -> None:
    one, four = (metric_forwards(16, 16, MetricSettings(names=NAMES), maps=maps) for maps in (1, 4))
    plain = [metric_forwards(16, 16, MetricSettings(), maps=maps) for maps in (1, 4)]
    assert (one - plain[0], four - plain[1]) == (16 + 64 + 32, 16 + 64 + 32)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_flat_map_is_no_number(value: float) -> None:
    images = pictures(2, 16, 16)  # cells of equal size
    maps = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    maps[0] = value
    classifier = Classifier.from_module(Linear(torch.linspace(-0.01, 0.02, 768).view(3, 16, 16)))
    found = evaluate(classifier, images, maps, [1, 1], settings=MetricSettings(names=NAMES)).values
    for name in NAMES:
        assert found[name].isnan().tolist() == [True, False], name


def test_infidelity_by_hand() -> None:
    sums, falls = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.5], [0.0, 0.5]])
    # beta = 0.5 / 2; errors 1/4 and 1/4.
    found = infidelity(sums, falls)
    assert float(found[0]) == pytest.approx(1 / 16)
    assert found[1].isnan()


def test_correlations_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [1.0, torch.nan, 2.0]])
    y = torch.tensor([[2.0, 4.0, 6.0], [9.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    assert pearson(x, y)[0] == pytest.approx(1)
    assert spearman(x, y)[1] == pytest.approx(-1)
    assert pearson(x, y)[2:].isnan().all()
    assert spearman(x, y)[2:].isnan().all()
    assert average_ranks(torch.tensor([[3.0, 1.0, 3.0, 0.0]])).tolist() == [[2.5, 1.0, 2.5, 0.0]]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 21), (224, 224), (4, 5)])
def test_cells_squares_and_sets_are_what_they_say(height: int, width: int) -> None:
    cells = grid(4, 4, height, width, torch.device("cpu"))
    assert (cells.sum(0) == 1).all()
    assert (cells.sum((1, 2)) > 0).all()
    drawn = squares(height, width)
    assert drawn.shape == (32, height, width)
    for mask in drawn:
        rows, columns = mask.any(1), mask.any(0)
        assert int(rows.sum()) == int(columns.sum()), "a square"
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum())
        assert 1 <= int(rows.sum()) <= min(height, width) // 2 + 1
    sets = cell_sets(height, width)
    assert sets.shape == (64, height, width)
    if height % 8 == width % 8 == 0:
        assert (sets.sum((1, 2)) == height * width // 4).all()
