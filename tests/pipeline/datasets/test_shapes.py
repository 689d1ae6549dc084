"""Boxes, polygons and run-length encodings against slow and hand-made answers."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from hdm_core import Preprocess
from pipeline.datasets.errors import UnreadableError
from pipeline.datasets.polygon import fill_polygon
from pipeline.datasets.rle import decode_counts, decode_mask_of_runs
from pipeline.datasets.shapes import draw_shapes, pack_shapes, region_of_shapes
from tests.pipeline.datasets.test_manifest import read, write
from tests.support.plans import refused


def encode_counts(counts: list[int]) -> str:
    """Write run lengths by the rule that the decoder reads, one bit of the arithmetic at a time."""
    text = ""
    for place, count in enumerate(counts):
        number = count - (counts[place - 2] if place > 2 else 0)
        while True:
            group, number = number % 32, number // 32
            done = (number == 0 and group < 16) or (number == -1 and group >= 16)
            text += chr(48 + group + (0 if done else 32))
            if done:
                break
    return text


def runs_of(mask: np.ndarray[Any, Any]) -> list[int]:
    column_major = [bool(mask[y, x]) for x in range(mask.shape[1]) for y in range(mask.shape[0])]
    runs = [len(list(group)) for _, group in groupby(column_major)]
    return [0, *runs] if column_major[0] else runs


def test_runs_that_were_counted_by_hand_are_decoded() -> None:
    # One 5 x 4 mask (width x height): columns 1 and 2 of rows 1 and 2. Down the columns:
    # 5 outside, 2 in, 2 out, 2 in, 9 out.
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1:3] = True
    assert (decode_mask_of_runs([5, 2, 2, 2, 9], 4, 5) == expected).all()
    # 5 -> "5"; 2 -> "2"; 2 -> "2"; 2 - 2 = 0 -> "0"; 9 - 2 = 7 -> "7".
    assert decode_counts("52207") == [5, 2, 2, 2, 9]
    assert (decode_mask_of_runs("52207", 4, 5) == expected).all()
    # 100 = 3 * 32 + 4: "4" with the bit for more is chr(48 + 4 + 32), then "3". -1 is 31 with the sign bit: chr(48 + 31).
    assert decode_counts("T3") == [100]
    assert decode_counts("1220O") == [1, 2, 2, 2, 1]


def test_encoded_masks_come_back() -> None:
    draw = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 3), (40, 61)):
        for share in (0.0, 0.03, 0.5, 1.0):
            mask = draw.random((height, width)) < share
            runs = runs_of(mask)
            assert decode_counts(encode_counts(runs)) == runs
            assert (decode_mask_of_runs(encode_counts(runs), height, width) == mask).all()


@pytest.mark.parametrize("counts", [[1, 2], [30], [-1, 21], [1.5, 18.5], "0", "5220", "T", "!", "o" * 100_000, [True, 19]], ids=repr)
def test_runs_that_do_not_fit_are_refused(counts: Any) -> None:
    with pytest.raises(ValueError, match="run"):
        decode_mask_of_runs(counts, 4, 5)


def test_a_polygon_has_the_pixels_whose_centres_are_inside() -> None:
    assert fill_polygon([1, 2, 4, 2, 4, 5, 1, 5], 6, 6).sum() == 9
    draw = np.random.default_rng(1)
    x, y = np.meshgrid(np.arange(23) + 0.5, np.arange(17) + 0.5)
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    for _ in range(20):
        points = draw.uniform(-6, 28, (3, 2))  # triangles: even-odd and non-zero agree
        inside = Outline(np.concatenate([points, points[:1]]), closed=True).contains_points(centres).reshape(17, 23)
        assert (fill_polygon(points.ravel().tolist(), 17, 23) == inside).all()


def test_shapes_are_united() -> None:
    polygon, runs = [0, 0, 2, 0, 2, 2, 0, 2], {"size": [4, 5], "counts": "52207"}
    text = pack_shapes(segmentations=[[polygon], runs], size=(5, 4))
    assert text is not None
    mask = np.asarray(draw_shapes(text, (5, 4)))
    expected = np.zeros((4, 5), dtype=bool)
    expected[:2, :2] = expected[1:3, 1:3] = True
    assert (mask == expected).all()
    boxes = pack_shapes([(0.0, 0.0, 2.0, 2.0), (3.0, 2.0, 9.0, 9.0)])
    assert boxes is not None
    drawn = np.asarray(draw_shapes(boxes, (5, 4)))
    region, kind = region_of_shapes(boxes, (5, 4), Preprocess(resize=(4, 5), crop=(4, 5)))
    assert kind == "bbox"
    assert (region.numpy() == drawn).all()
    assert drawn.sum() == 8
    assert pack_shapes() is None


@pytest.mark.parametrize(
    ("segmentations", "words"),
    [
        ([[[0, 0, 1, 1]]], "three points or more"),
        ([[[0, 0, 1, 1, 2]]], "three points or more"),
        ([[[0, 0, 1, 1, 2, float("nan")]]], "no finite number"),
        ([[[0, 0, 1, 1, 2, 1e300]]], "no finite number"),
        ([[["a", 0, 1, 1, 2, 3]]], "invalid"),
        ([{"size": [5, 4], "counts": "52207"}], "its mask is 4 x 5, the image 5 x 4"),
        ([{"counts": "52207"}], "invalid"),
        ([{"size": [4, 5], "counts": [3]}], "the runs have 3 pixels"),
        ([7], "invalid"),
    ],
    ids=repr,
)
def test_an_invalid_segmentation_makes_its_image_unreadable(segmentations: Any, words: str) -> None:
    text = pack_shapes(segmentations=segmentations)
    assert text is not None
    with pytest.raises(UnreadableError, match=words):
        draw_shapes(text, (5, 4))


def test_a_manifest_may_have_several_boxes_per_image(tmp_path: Path) -> None:
    both = pack_shapes([(1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)])
    assert [sample.shapes for sample in read(write(tmp_path, "path,boxes\na,1 2 3 4; 5 6 7 8\nb,\n"))] == [both, None]
    columns = {"path": ["a", "b"], "boxes": [[[1, 2, 3, 4], [5, 6, 7, 8]], None]}
    assert [sample.shapes for sample in read(write(tmp_path, columns, "parquet"))] == [both, None]
    for text in ("1 2 3 4; 5 6", "1 2 3 4; 9 9 9 9", "x"):
        assert "row 1: bbox must be left top right bottom" in refused(lambda text=text: read(write(tmp_path, f"path,boxes\na,{text}\n")))
