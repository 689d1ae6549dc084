"""The page's classes: means, best and worst maps, and maps averaged by score."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hdm_core.heatmap import colour
from pipeline.report.classes import draw_classes
from pipeline.report.gallery import encode_jpeg
from pipeline.runs.maps import open_array
from pipeline.runs.records import top_rank
from tests.support.browser import HOSTILE, text_of
from tests.support.report_runs import page_of, stored_run


def test_classes_have_means_and_their_best_and_worst_map_and_bins_average_by_score(tmp_path: Path) -> None:
    # 14 images: 12 of two classes with known scores, one flat, and one whose class has no other image.
    changes = {
        (row, "hdm"): {"insertion_auc": (row + 1) / 16, "target": row % 2, "target_name": ("wren", HOSTILE)[row % 2]} for row in range(12)
    }
    changes[12, "hdm"] = {"status": "flat", "target": 0, "target_name": "wren", "probability": 0.5}
    changes[13, "hdm"] = {"insertion_auc": None}
    store = stored_run(tmp_path, 14, changes=changes)
    (tmp_path / "2.png").unlink()  # a photograph is gone: its map counts, its pixels do not
    overview = draw_classes(store, top_rank(store.records()))
    assert overview is not None
    assert (overview.method, overview.score, overview.classes, overview.unscored) == ("HDM", "insertion ↑", 2, 1)
    wren, hostile = overview.entries
    assert (wren.name, wren.images, wren.without, wren.probability) == ("wren", 6, 1, 0.625)
    assert (hostile.name, hostile.images, hostile.without) == (HOSTILE, 6, 0)
    assert wren.score == np.mean([1, 3, 5, 7, 9, 11]) / 16
    assert wren.mean.note == "mean of 6 maps over that of 5 photographs"
    assert wren.best is not None
    assert wren.worst is not None
    assert [wren.best.note, wren.worst.note] == ["0.688, bird-10", "0.062, bird-0"]

    assert [tile.note for tile in overview.bins] == [f"{count} images" for count in (2, 2, 3, 2, 3)]
    assert overview.bins[0].title == "0.062 to 0.125"
    maps = np.asarray(open_array(store.storage.zarr("maps.zarr"), "hdm")[:2], np.float64)
    expected = encode_jpeg(colour(maps.mean(0).astype(np.float32)))
    assert store.storage.read(f"report/{overview.bins[0].path}") == expected

    page = page_of(store)
    section = page.partition('id="classes"')[2].partition('id="figures"')[0]
    assert len(re.findall("<img", section)) == 2 * 3 + 5
    assert HOSTILE not in section
    assert "1 maps have no score" in text_of(section)
    assert "@media print" in page


def test_a_run_of_few_images_of_different_classes_has_no_overview(tmp_path: Path) -> None:
    changes = {(row, "hdm"): {"target": row, "target_name": f"class {row}"} for row in range(3)}
    store = stored_run(tmp_path, 3, changes=changes)
    assert draw_classes(store, top_rank(store.records())) is None
    assert 'id="classes"' not in page_of(store)
