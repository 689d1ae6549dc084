from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.energy import GRID, Energies, cell_edges, cell_energies
from pipeline.audit.settings import AuditSettings
from pipeline.audit.spatial import is_frame, place_name, suspicions, tail_probability


def energies(rng: np.random.Generator, classes: int, per_class: int, marked: dict[str, tuple[int, float]]) -> Energies:
    """Random maps; a share of the images of a marked class has much energy in one cell."""
    names = np.array([f"class {number % classes}" for number in range(classes * per_class)], dtype=object)
    cells = rng.dirichlet(np.full(GRID**2, 0.5), len(names))
    for name, (cell, share) in marked.items():
        of_class = np.flatnonzero(names == name)
        for row in of_class[: round(share * len(of_class))]:
            cells[row] *= 0.5
            cells[row, cell] += 0.5
    sizes = dict.fromkeys(sorted(set(names.tolist())), per_class)
    return Energies(np.arange(len(names)), names, cells, sizes, (64, 64))


def test_cell_energies_are_the_shares_of_a_slow_loop() -> None:
    maps = np.random.default_rng(0).random((3, 21, 37)).astype(np.float16)
    found = cell_energies(maps)
    rows, columns = cell_edges(21), cell_edges(37)
    for number, values in enumerate(maps.astype(float)):
        slow = [values[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].sum() for i in range(GRID) for j in range(GRID)]
        np.testing.assert_allclose(found[number], np.array(slow) / values.sum(), rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_mark_in_a_corner_of_some_images_is_suspected_in_its_class_alone(share: float) -> None:
    data = energies(np.random.default_rng(1), 6, 40, {"class 2": (0, share)})
    (found,) = suspicions(data, AuditSettings(), lambda _: None)
    assert found.class_name == "class 2"
    assert place_name(found.cells) == "top-left corner"
    assert found.cells[0, 0]
    assert found.p < 0.001
    assert found.share > found.other_share


def test_classes_without_a_difference_are_rarely_suspected() -> None:
    alarms = sum(len(suspicions(energies(np.random.default_rng(seed), 5, 20, {}), AuditSettings(), lambda _: None)) for seed in range(10))
    assert alarms <= 1  # of 50 classes, at a level of 0.01 for each ten


def test_few_images_cannot_be_more_certain_than_their_permutations() -> None:
    data = energies(np.random.default_rng(4), 2, 5, {"class 1": (63, 1.0)})
    (found,) = (each for each in suspicions(data, AuditSettings(), lambda _: None) if each.class_name == "class 1")
    assert found.p >= 2 / 252


def test_one_class_and_small_classes_are_not_tested() -> None:
    rng = np.random.default_rng(2)
    assert suspicions(energies(rng, 1, 20, {}), AuditSettings(), lambda _: None) == []
    assert suspicions(energies(rng, 3, 4, {"class 1": (0, 1.0)}), AuditSettings(), lambda _: None) == []


def test_a_p_value_is_counted_where_permutations_exceed_it_and_fitted_beyond() -> None:
    maxima = np.random.default_rng(3).gamma(9.0, 1.0, 1000)
    assert tail_probability(float(np.sort(maxima)[-50]), maxima) == pytest.approx(51 / 1001)
    for value in (20.0, 25.0):  # beyond all but a few of the thousand: near the tail of the distribution they are from
        assert tail_probability(value, maxima) == pytest.approx(stats.gamma.sf(value, 9.0), rel=0.8)
    assert 0 < tail_probability(35.0, maxima) < 1e-6


@pytest.mark.parametrize(
    ("rows", "columns", "name"),
    [
        ([0], [0, 1], "top-left corner"),
        ([7], [6], "bottom-right corner"),
        ([0, 1], range(8), "top border"),
        (range(4), range(5), "top-left corner"),
        (range(8), [7], "right border"),
        ([3, 4], [2, 5], "centre"),
    ],
)
def test_places_have_names(rows: list[int], columns: list[int], name: str) -> None:
    cells = np.zeros((GRID, GRID), bool)
    cells[np.ix_(list(rows), list(columns))] = True
    assert place_name(cells) == name


def test_a_frame_goes_around_the_image() -> None:
    cells = np.ones((GRID, GRID), bool)
    cells[1:-1, 1:-1] = False
    assert is_frame(cells)
    assert not is_frame(np.eye(GRID, dtype=bool))
