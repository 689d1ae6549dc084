from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hdm_core.masking.ops import AuxiliaryMask, Upsampling, auxiliary_masks, depth, keep_top, mask_shape, masks_trained, normalise, upsample
from tests.support import reference

GRIDS = st.integers(2, 6).flatmap(
    lambda side: st.lists(st.lists(st.integers(-20, 20), min_size=side, max_size=side), min_size=2, max_size=6)
)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(20, 40), st.integers(20, 40))
def test_upsampling_is_interpolation_and_its_adjoint(a: int, b: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(a + 100 * b)
    v = torch.rand(2, 1, a, b, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, height, width, generator=generator, dtype=torch.float64)
    scale = Upsampling((a, b), height, width, v)
    enlarged = upsample(v, height, width)
    torch.testing.assert_close(scale(v), enlarged)
    (slope,) = torch.autograd.grad((enlarged * weight).sum(), v, retain_graph=True)
    torch.testing.assert_close(scale.adjoint(weight), slope)
    (mean,) = torch.autograd.grad(enlarged.mean((1, 2, 3)).sum(), v)
    torch.testing.assert_close(scale.weights.expand_as(mean), mean)
    assert float(scale.weights.sum()) == pytest.approx(1)


def test_a_blur_follows_the_upsampling_in_the_same_matrices() -> None:
    v = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    scale = Upsampling((3, 4), 11, 9, v, blur=1.7)
    enlarged = upsample(v, 11, 9)
    blurred = torch.zeros_like(enlarged)
    for i in range(11):
        for j in range(9):
            distance = (torch.arange(11.0)[:, None] - i) ** 2 + (torch.arange(9.0) - j) ** 2
            weights = torch.exp(-distance.double() / (2 * 1.7**2))
            blurred[:, 0, i, j] = (enlarged[:, 0] * weights).sum((1, 2)) / weights.sum()
    torch.testing.assert_close(scale(v), blurred)
    weight = torch.randn(2, 1, 11, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (slope,) = torch.autograd.grad((blurred * weight).sum(), v, retain_graph=True)
    torch.testing.assert_close(scale.adjoint(weight), slope)
    (mean,) = torch.autograd.grad(blurred.mean((1, 2, 3)).sum(), v)
    torch.testing.assert_close(scale.weights.expand_as(mean), mean)


def test_upsamplings_of_the_same_sizes_share_their_matrices_and_others_do_not() -> None:
    like = torch.zeros(1)
    one, same = (Upsampling((3, 4), 11, 9, like) for _ in range(2))
    assert one.weights is same.weights
    for other in (Upsampling((4, 3), 11, 9, like), Upsampling((3, 4), 9, 11, like), Upsampling((3, 4), 11, 9, like, blur=1.0)):
        assert other.weights is not one.weights
    double = Upsampling((3, 4), 11, 9, like.double())
    assert double.weights.dtype == torch.float64
    assert one.weights.dtype == torch.float32
    with torch.inference_mode():
        made = Upsampling((5, 4), 11, 9, like)
    v = torch.rand(2, 1, 5, 4, requires_grad=True)
    made(v).sum().backward()  # what was made in inference mode would be refused here
    torch.testing.assert_close(v.grad[0, 0], 99 * made.weights)


@given(GRIDS)
def test_n_is_the_papers_formula_and_zero_on_a_constant_map(grid: list[list[int]]) -> None:
    x = torch.tensor(grid, dtype=torch.float64)
    assert torch.equal(normalise(x), reference.N(x))


@given(GRIDS)
def test_n_spans_zero_to_one_exactly(grid: list[list[int]]) -> None:
    x = normalise(torch.tensor(grid, dtype=torch.float32) / 7)
    assert x.min() == 0
    assert x.max() in (0, 1)


def test_n_of_a_constant_map_is_zero_also_where_its_value_is_not() -> None:
    assert torch.equal(normalise(torch.full((2, 1, 3, 3), 0.7)), torch.zeros(2, 1, 3, 3))


def test_n_treats_every_image_independently() -> None:
    x = torch.randn(3, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    x[1] = 4.0
    assert torch.equal(normalise(x), torch.cat([normalise(image[None]) for image in x]))


def test_n_propagates_nan_within_its_image_only() -> None:
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    x[0, 0, 0, 0] = torch.nan
    assert normalise(x)[0].isnan().all()
    assert torch.equal(normalise(x)[1], normalise(x[1:])[0])


@pytest.mark.parametrize(("a", "b", "height", "width"), [(2, 3, 16, 20), (5, 5, 13, 7), (1, 4, 6, 6), (7, 7, 7, 7), (8, 8, 16, 5)])
def test_g_is_bilinear_between_pixel_centres(a: int, b: int, height: int, width: int) -> None:
    v = torch.randn(2, 1, a, b, dtype=torch.float64, generator=torch.Generator().manual_seed(a))
    expected = torch.stack([reference.g(image[0], height, width) for image in v])
    torch.testing.assert_close(upsample(v, height, width)[:, 0], expected, rtol=0, atol=1e-12)


def test_g_of_two_pixels_by_hand() -> None:
    expected = torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(1, 1, 4, 4)
    assert torch.equal(upsample(torch.tensor([[[[0.0, 1.0]]]]), 4, 4), expected)


@pytest.mark.parametrize(
    ("size", "ratio", "limit", "k"),
    [
        (7, 2, 224, 5),
        (7, 2, 223, 4),
        (7, 2, 225, 5),
        (9, 5, 225, 2),
        (8, 3, 216, 3),
        (1, 10, 1000, 3),
        (6, 2, 224, 5),
        (6, 5, 224, 2),
        (9, 2, 9, 0),
    ],
)
def test_k_on_exact_powers(size: int, ratio: int, limit: int, k: int) -> None:
    assert depth(size, ratio, limit) == k


@given(size=st.integers(1, 400), ratio=st.integers(2, 12), limit=st.integers(1, 5000))
def test_k_is_the_largest_power_that_fits(size: int, ratio: int, limit: int) -> None:
    fitting = [k for k in range(40) if size * ratio**k <= limit]
    if fitting:
        assert depth(size, ratio, limit) == max(fitting)
    else:
        with pytest.raises(ValueError, match="mask size"):
            depth(size, ratio, limit)


@given(size=st.integers(1, 50), ratio=st.integers(2, 9), k=st.integers(0, 12))
def test_k_loses_no_exact_power(size: int, ratio: int, k: int) -> None:
    assert depth(size, ratio, size * ratio**k) == k
    if k:
        assert depth(size, ratio, size * ratio**k - 1) == k - 1


@pytest.mark.parametrize(("size", "ratio", "limit"), [(0, 2, 8), (-1, 2, 8), (9, 2, 8), (3, 1, 8), (3, 0, 8)])
def test_k_refuses_sizes_and_ratios_without_one(size: int, ratio: int, limit: int) -> None:
    with pytest.raises(ValueError, match=r"mask size|ratio"):
        depth(size, ratio, limit)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True),
    ratios=st.lists(st.integers(2, 6), min_size=1, max_size=3, unique=True),
    height=st.integers(12, 80),
    width=st.integers(12, 80),
)
def test_the_levels_hold_every_auxiliary_mask_once(sizes: list[int], ratios: list[int], height: int, width: int) -> None:
    levels = auxiliary_masks(sizes, ratios, height, width)
    expected = set()
    for i, size in enumerate(sizes):
        for ratio in ratios:
            for k in range(1, 10):
                if ratio**k * size <= height and ratio**k * size <= width:
                    expected.add((k, AuxiliaryMask(i, ratio, ratio**k * size)))
    found = [(k, auxiliary) for k, level in enumerate(levels, start=1) for auxiliary in level]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert all(levels)
    assert masks_trained(sizes, ratios, height, width) == len(sizes) + len(expected)


@given(size=st.integers(1, 12), height=st.integers(12, 400), width=st.integers(12, 400))
def test_cells_are_square_and_never_smaller_than_a_pixel(size: int, height: int, width: int) -> None:
    rows, columns = mask_shape(size, height, width)
    assert min(rows, columns) == size
    assert (rows == size) if height <= width else (columns == size)
    assert rows <= height
    assert columns <= width
    cell = min(height, width) / size
    assert abs(height / cell - rows) <= 0.5
    assert abs(width / cell - columns) <= 0.5


def test_the_shape_of_a_mask_by_hand() -> None:
    assert mask_shape(8, 320, 256) == (10, 8)
    assert mask_shape(6, 320, 256) == (8, 6)  # 7.5 rounds up
    assert mask_shape(11, 256, 320) == (11, 14)  # 13.75
    assert mask_shape(11, 224, 224) == (11, 11)


@pytest.mark.parametrize(("sizes", "ratios", "count"), [(range(6, 12), (2, 3, 5), 56), (range(6, 10), (2, 3), 33)])
def test_the_papers_settings_train_as_many_masks_as_documented(sizes: range, ratios: tuple[int, ...], count: int) -> None:
    assert masks_trained(sizes, ratios, 224, 224) == count


@given(keep=st.floats(0.05, 1.0), seed=st.integers(0, 1000), side=st.integers(4, 12))
def test_gamma_keeps_its_share_of_the_pixels(keep: float, seed: int, side: int) -> None:
    values = torch.randperm(side * side, generator=torch.Generator().manual_seed(seed)).double().reshape(1, 1, side, side)
    count = max(1, round(keep * side * side))
    kept = keep_top(values, keep)
    # A pixel equal to gamma becomes 0: one pixel fewer is above zero.
    assert int((kept > 0).sum()) == count - 1
    assert torch.equal(kept > 0, values > side * side - count)


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 1.0])
def test_the_thresholded_mask_is_eq_10(keep: float) -> None:
    stacked = torch.randn(3, 1, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).abs()
    block = reference.HDM(sizes=(1,), ratios=(2,), steps=1, learning_rate=0.1, eta=1, tau=0.5, keep_fraction=keep)
    expected = torch.stack([block.top(image[0]) for image in stacked])
    torch.testing.assert_close(keep_top(stacked, keep)[:, 0], expected, rtol=0, atol=1e-12)


def test_gamma_with_ties_keeps_all_that_reach_it() -> None:
    stacked = torch.tensor([[[[3.0, 2.0], [2.0, 1.0]]]])
    assert torch.equal(keep_top(stacked, 0.5), torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))


def test_the_mask_of_a_constant_sum_is_zero() -> None:
    assert torch.equal(keep_top(torch.full((1, 1, 4, 4), 2.5), 0.3), torch.zeros(1, 1, 4, 4))


def test_a_sum_of_masks_that_differs_by_rounding_alone_is_flat() -> None:
    values = torch.full((3, 1, 4, 4), 2.5)
    values[0, 0, 1, 2] += 5e-6  # 2e-6 of the largest
    values[1, 0, 1, 2] += 1e-4  # 4e-5 of it: small, and no rounding
    kept = keep_top(values, 1.0)
    assert kept.amax((1, 2, 3)).tolist() == [0, 1, 0]
    assert kept[1, 0, 1, 2] == 1


def test_a_share_below_one_pixel_keeps_the_best_one() -> None:
    assert torch.equal(keep_top(torch.arange(4.0).reshape(1, 1, 2, 2), 0.01), torch.zeros(1, 1, 2, 2))
