"""The page of incomplete runs, and of images that could not be explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdm_core.metrics.registry import chosen_metrics
from tests.support.browser import text_of
from tests.support.report_runs import gallery_of, page_of, photograph, stored_run, unreadable


def test_a_run_that_is_not_complete(tmp_path: Path) -> None:
    text = text_of(page_of(stored_run(tmp_path, committed=2)))
    assert "Incomplete: 2 of 3 images processed" in text
    assert "2 of 3 images shown." in text
    assert "bird-2" not in text


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    page = page_of(stored_run(tmp_path, committed=0))
    assert "Incomplete: 0 of 3 images processed" in page
    assert "no shard is done" in page
    assert "<img" not in page


def test_images_that_could_not_be_explained_are_listed(tmp_path: Path) -> None:
    changes = {
        **unreadable(0),
        (1, "hdm"): {"status": "failed", "error": "RuntimeError: out of luck"},
        (2, "hdm"): {"status": "nan"},
        (2, "grad_cam"): {"status": "flat", "target": 5, "target_name": "Jenny wren", "probability": 0.5},
    }
    page = page_of(stored_run(tmp_path, changes=changes))
    text = text_of(page)
    assert "Failed explanations (3)" in text
    assert "bird-0 all unreadable the file is empty" in text
    assert "bird-1 HDM failed RuntimeError: out of luck" in text
    assert "bird-2 HDM nan The method diverged on this image." in text
    assert "The map is constant: it carries no information. Grad-CAM flat Jenny wren · 50.0%" in text
    assert "2 of 3 images shown." in text
    assert gallery_of(page).count("<img ") == 3  # two photographs and one map


def test_no_image_that_is_ok(tmp_path: Path) -> None:
    page = page_of(stored_run(tmp_path, images=2, changes={**unreadable(0), **unreadable(1)}))
    assert "0 of 2 images shown" in page
    assert "<img" not in page
    assert page.count(">\u2013</td>") == 2 * (len(chosen_metrics(None)) + 1)  # dashes for all means and times


def test_many_problems_are_counted_but_not_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.summary._LISTED", 1)
    text = text_of(page_of(stored_run(tmp_path, changes={**unreadable(0), **unreadable(2)})))
    assert "The first 1 of 2" in text
    assert "bird-2" not in text.partition("The first 1 of 2")[2]


def test_a_photograph_that_is_gone(tmp_path: Path) -> None:
    store = stored_run(tmp_path, images=1)
    (tmp_path / "0.png").unlink()
    page = page_of(store)
    assert "The photograph is not available any more: cannot read" in text_of(page)
    assert gallery_of(page).count("<img ") == 4


def test_a_photograph_that_was_replaced(tmp_path: Path) -> None:
    store = stored_run(tmp_path, images=1)
    photograph(tmp_path / "0.png", row=1)
    assert "0.png has changed since the run" in text_of(page_of(store))
