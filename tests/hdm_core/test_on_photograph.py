"""Maps and contours in the photograph's pixels, against slow versions and areas computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hdm_core import Preprocess
from hdm_core.contours import contours, polygon_area, ring_area
from hdm_core.heatmap import layer, overlay
from hdm_core.on_photograph import on_photograph, scaled

MODES = {
    "crop": Preprocess(resize=40, crop=32),
    "squash": Preprocess(resize=(32, 48), crop=None),
    "pad": Preprocess(resize=48, crop=None, pad=True),
    "none": Preprocess(resize=None, crop=32),
}


@pytest.mark.parametrize("preprocess", MODES.values(), ids=MODES)
def test_the_peak_of_a_map_lies_on_the_pixels_that_the_network_saw_there(preprocess: Preprocess) -> None:
    width, height, x, y = 90, 60, 50, 22  # not square, and a spot that is not in the centre
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
    seen = np.asarray(preprocess.cropped(Image.fromarray(pixels)), np.float32)[:, :, 0] / 255
    full = on_photograph(seen, preprocess.crop_box(width, height), (width, height))
    assert full.shape == (height, width)
    row, column = np.unravel_index(np.nanargmax(full), full.shape)
    assert abs(row - y) <= 1
    assert abs(column - x) <= 1
    left, top, right, bottom = preprocess.geometry(width, height).visible(width, height)
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    assert (np.isfinite(full) == inside).all()


def test_the_interpolation_is_that_of_a_slow_loop_and_of_pillow() -> None:
    values = np.random.default_rng(0).random((5, 7), np.float32)
    box, size = (2.5, -3.0, 40.0, 21.25), (36, 19)
    full = on_photograph(values, box, size)

    def slow(x: int, y: int) -> float:
        u = np.clip((x + 0.5 - box[0]) * 7 / (box[2] - box[0]) - 0.5, 0, 6)
        v = np.clip((y + 0.5 - box[1]) * 5 / (box[3] - box[1]) - 0.5, 0, 4)
        i, j = min(int(v), 3), min(int(u), 5)
        a, b = v - i, u - j
        rows = values[i : i + 2, j : j + 2]
        return float(np.array([1 - a, a]) @ rows @ np.array([1 - b, b]))

    expected = [[slow(x, y) if box[0] <= x + 0.5 < box[2] else np.nan for x in range(36)] for y in range(19)]
    np.testing.assert_allclose(full, expected, atol=1e-5)
    smaller = on_photograph(values, (0, 0, 3, 2), (3, 2))  # a photograph that is smaller than the map: every pixel of the map counts
    pillow = np.asarray(Image.fromarray(values).resize((3, 2), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(smaller, pillow, atol=1e-5)


def test_a_smaller_copy_has_the_box_in_proportion_and_is_never_larger() -> None:
    assert scaled((400, 200), (100, 0, 300, 200), 100) == ((100, 50), (25.0, 0.0, 75.0, 50.0))
    assert scaled((400, 200), (100, 0, 300, 200), 900) == ((400, 200), (100.0, 0.0, 300.0, 200.0))
    assert scaled((4000, 3), (0, 0, 4000, 3), 10)[0] == (10, 1)


def test_the_photograph_stays_as_it_is_outside_the_crop() -> None:
    photograph = Image.fromarray(np.full((4, 6, 3), 200, np.uint8))
    full = np.full((4, 6), np.nan, np.float32)
    full[1:3, 2:4] = 1
    drawn, colours = np.asarray(overlay(photograph, full)), np.asarray(layer(full))
    outside = np.isnan(full)
    assert (drawn[outside] == 200).all()
    assert (drawn[~outside] == np.asarray(overlay(photograph, np.ones((4, 6))))[~outside]).all()
    assert (colours[outside, 3] == 0).all()
    assert (colours[~outside, 3] == 128).all()


def test_contours_are_closed_and_have_the_areas_of_discs_and_rings() -> None:
    y, x = np.mgrid[:100, :120] + 0.5
    distance = np.hypot(x - 60, y - 50)
    whole, size = (0.0, 0.0, 240.0, 200.0), (240, 200)  # the photograph has four times the map's pixels
    (disc,) = contours(np.clip(1 - distance / 60, 0, 1), whole, size, 0.5)
    assert polygon_area(disc) == pytest.approx(4 * np.pi * 30**2, rel=2e-3)
    assert np.mean(disc[0][:-1], axis=0) == pytest.approx([120, 100], abs=0.5)
    ((outer, hole),) = contours(np.clip(1 - abs(distance - 30) / 20, 0, 1), whole, size, 0.5)
    assert outer[0] == outer[-1]
    assert hole[0] == hole[-1]
    assert ring_area(outer) == pytest.approx(4 * np.pi * 40**2, rel=2e-3)
    assert ring_area(hole) == pytest.approx(-4 * np.pi * 20**2, rel=2e-3), "a hole turns the other way"
    assert contours(np.zeros((3, 3)), whole, size, 0.5) == []


def test_contours_end_at_the_border_of_what_the_network_saw() -> None:
    (all_of_it,) = contours(np.ones((4, 4)), (3, 2, 9, 8), (20, 10), 0.5)
    assert polygon_area(all_of_it) == 36
    assert (np.min(all_of_it[0], axis=0).tolist(), np.max(all_of_it[0], axis=0).tolist()) == ([3, 2], [9, 8])
    (padded,) = contours(np.ones((4, 4)), (-3, -2, 9, 8), (20, 7), 0.5)
    assert polygon_area(padded) == 9 * 7
    assert contours(np.ones((4, 4)), (30, 0, 40, 10), (20, 7), 0.5) == []
