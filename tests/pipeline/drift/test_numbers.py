"""Statistics and similarities against slow, obvious versions and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from hdm_core.similarity import overlap, spearman, ssim
from pipeline.tables.bootstrap import GROUPS, RESAMPLES, estimates

NOISE = np.random.default_rng(0)


def maps(count: int = 6, height: int = 24, width: int = 20, levels: int | None = None) -> np.ndarray:
    """Return random maps; with few levels most pixels have ties."""
    values = NOISE.random((count, height, width))
    return (values if levels is None else np.floor(values * levels) / levels).astype(np.float16)


# Similarity of maps


@pytest.mark.parametrize("levels", [None, 3, 40])
def test_spearman_is_scipys(levels: int | None) -> None:
    one, other = maps(levels=levels), maps(levels=levels)
    other[3:] = (one[3:] + other[3:]) / 2
    expected = [spearmanr(a.ravel().astype(float), b.ravel().astype(float)).statistic for a, b in zip(one, other, strict=True)]
    assert spearman(one, other) == pytest.approx(expected)


def test_spearman_by_hand() -> None:
    one, other = np.array([[[0, 0, 0, 1]], [[0, 0.25, 0.5, 1]]], np.float16), np.array([[[1, 0, 0, 0]], [[1, 0.5, 0.25, 0]]], np.float16)
    assert spearman(one, other) == pytest.approx([-1 / 3, -1])
    assert spearman(one, np.array([[[-0.0, 0, 0, 1]]] * 2, np.float16))[0] == 1, "minus zero is zero"
    assert np.isnan(spearman(np.full((1, 2, 2), 0.5, np.float16), maps(1, 2, 2)))


@pytest.mark.parametrize("size", [(11, 11), (24, 31), (64, 64)])
def test_ssim_is_scikit_images(size: tuple[int, int]) -> None:
    one = maps(4, *size)
    other = np.concatenate([maps(2, *size), one[2:3], (one[3:] * 0.5).astype(np.float16)])
    expected = [
        structural_similarity(a.astype(float), b.astype(float), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)
        for a, b in zip(one, other, strict=True)
    ]
    assert ssim(one, other) == pytest.approx(expected)


def test_a_map_smaller_than_its_window_has_no_ssim() -> None:
    assert np.isnan(ssim(maps(2, 10, 30), maps(2, 10, 30))).all()


def test_overlap_by_sorting() -> None:
    one, other = maps(levels=7), maps(levels=7)
    count = round(0.2 * one[0].size)

    def top(values: np.ndarray) -> set[int]:
        return set(sorted(range(values.size), key=lambda pixel: (-values.flat[pixel], pixel))[:count])

    expected = [len(top(a) & top(b)) / len(top(a) | top(b)) for a, b in zip(one, other, strict=True)]
    assert overlap(one, other) == pytest.approx(expected)


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_properties_of_similarity(levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = ((rng.integers(0, levels + 1, (1, 12, 13)) / levels).astype(np.float16) for _ in range(2))
    for measure in (spearman, ssim, overlap):
        assert measure(one, other) == pytest.approx(measure(other, one)), "symmetric"
        assert np.abs(measure(one, other)) <= 1
        assert measure(one, one) == 1
    squared = (one.astype(np.float32) ** 2).astype(np.float16)  # keeps the order of the pixels
    assert spearman(one, squared) == pytest.approx(1)
    assert overlap(one, squared) == 1


# Statistics


def test_the_bootstrap_is_that_of_a_loop() -> None:
    values = NOISE.normal(0.2, 1, (25, 2))
    values[[3, 7, 8], 1] = np.nan
    rng = np.random.default_rng(0)
    means = np.array([np.nanmean(values[rng.integers(25, size=25)], axis=0) for _ in range(RESAMPLES)])
    sums = np.array([(rng.integers(2, size=25) * 2 - 1) @ np.nan_to_num(values) for _ in range(RESAMPLES)])
    for column, found in enumerate(estimates(values)):
        assert found.n == np.isfinite(values[:, column]).sum()
        assert found.mean == pytest.approx(np.nanmean(values[:, column]))
        assert (found.low, found.high) == pytest.approx(np.percentile(means[:, column], [2.5, 97.5]))
        extreme = np.abs(sums[:, column]) >= abs(np.nansum(values[:, column]))
        assert found.p == pytest.approx((1 + extreme.sum()) / (1 + RESAMPLES))


def test_p_is_that_of_all_flips() -> None:
    changes = np.array([0.5, 0.25, 0.25, -0.125, 0.75, 0.5])
    signs = 1 - 2 * ((np.arange(64)[:, None] >> np.arange(6)) & 1)
    exact = (np.abs(signs @ changes) >= abs(changes.sum())).mean()
    assert estimates(changes[:, None])[0].p == pytest.approx(exact, abs=0.01)


def test_no_change_is_no_change() -> None:
    (found,) = estimates(np.zeros((9, 1)))
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    (nothing,) = estimates(np.full((9, 1), np.nan))
    assert (nothing.n, nothing.mean, nothing.low, nothing.p) == (0, None, None, None)


def test_of_many_images_groups_are_drawn() -> None:
    values = NOISE.normal(0.05, 1, (20 * GROUPS + 7, 2))
    values[::3, 1] = np.nan
    first, second = estimates(values)
    for found, column in ((first, values[:, 0]), (second, values[np.isfinite(values[:, 1]), 1])):
        assert found.mean == pytest.approx(column.mean())
        assert found.low is not None
        assert found.high is not None
        assert found.high - found.low == pytest.approx(2 * 1.96 * column.std() / len(column) ** 0.5, rel=0.1)
    assert estimates(values) == [first, second]
