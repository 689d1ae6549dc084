"""Wilcoxon's test and Holm's correction against slow versions and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pipeline.tables.wilcoxon import EXACT_UP_TO, holm, mean_ranks, wilcoxon


def by_all_signs(differences: np.ndarray) -> float:
    """The exact p-value by a loop over all assignments of signs."""
    differences = differences[differences != 0]
    ranks = [
        sum(other < each for other in abs(differences)) + (sum(other == each for other in abs(differences)) + 1) / 2
        for each in abs(differences)
    ]
    observed = sum(rank for rank, each in zip(ranks, differences, strict=True) if each > 0)
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=len(ranks))]
    below, above = sum(each <= observed for each in sums), sum(each >= observed for each in sums)
    return min(1.0, 2 * min(below, above) / len(sums))


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
@pytest.mark.parametrize("digits", [None, 1, 0])
def test_the_exact_test_counts_all_assignments_of_signs(n: int, digits: int | None) -> None:
    draw = np.random.default_rng(n)
    differences = draw.normal(0.5, 1, n)
    if digits is not None:  # ties, and zeros
        differences = differences.round(digits)
    assert wilcoxon(differences) == pytest.approx(by_all_signs(differences), abs=1e-12)


def test_five_equal_wins_are_no_significant_difference() -> None:
    assert wilcoxon(np.full(5, 0.25)) == pytest.approx(2 / 2**5)


def test_a_published_example() -> None:
    # Darwin's heights of 15 pairs of maize plants, in eighths of an inch: the negative ranks sum to 24, and p is 0.041.
    assert wilcoxon(np.array([6.0, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75])) == pytest.approx(0.041260, abs=1e-5)


@pytest.mark.parametrize(("n", "digits"), [(10, None), (25, None), (26, None), (60, None), (60, 1), (300, 1)])
def test_scipy_has_the_same_p(n: int, digits: int | None) -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(n).normal(0.2, 1, n)
    if digits is not None:
        differences = differences.round(digits)
    method = "exact" if n <= EXACT_UP_TO else "approx"
    expected = stats.wilcoxon(differences, zero_method="wilcox", correction=method == "approx", method=method).pvalue
    assert wilcoxon(differences) == pytest.approx(expected, rel=1e-9)


def test_the_approximation_continues_the_exact_test() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1, EXACT_UP_TO + 1)
    exact = by_counts(differences)
    assert wilcoxon(differences) == pytest.approx(exact, abs=0.007)  # 0.0064 is the largest distance of all rank sums of 26


def by_counts(differences: np.ndarray) -> float:
    """The exact p-value without ties by the recurrence over the ranks 1 to n."""
    counts = {0: 1}
    for rank in range(1, len(differences) + 1):
        counts = {total: counts.get(total, 0) + counts.get(total - rank, 0) for total in range(max(counts) + rank + 1)}
    order = np.argsort(np.abs(differences))
    observed = sum(rank for rank, index in enumerate(order, 1) if differences[index] > 0)
    low = sum(count for total, count in counts.items() if total <= observed)
    high = sum(count for total, count in counts.items() if total >= observed)
    return min(1.0, 2 * min(low, high) / 2 ** len(differences))


def test_zeros_are_left_out_and_alone_prove_nothing() -> None:
    some = np.array([0.1, 0.2, 0.3, -0.4, 0.5])
    assert wilcoxon(np.array([0.0, *some, 0.0])) == wilcoxon(some)
    assert wilcoxon(np.zeros(9)) == 1.0


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    assert mean_ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4.0, 1.0, 4.0, 2.0, 4.0]


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; none is smaller than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
