"""Remarks of the page about baselines that keep the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.report.contrast import ContrastRemarks
from tests.support.browser import text_of
from tests.support.report_runs import gallery_of, page_of, stored_run

KEPT: dict[str, Any] = {"baseline": "mean", "baseline_probability": 0.5, "no_contrast": True}
METRICS_KEPT = {"metrics_baseline_probability": 0.5, "metrics_no_contrast": True}


def test_an_image_says_once_what_its_maps_mean(tmp_path: Path) -> None:
    changes = {(0, "hdm"): {**KEPT, **METRICS_KEPT}, (0, "grad_cam"): METRICS_KEPT}
    page = page_of(stored_run(tmp_path, changes=changes))
    sentence = (
        "HDM, metrics: the network answers Jenny wren for a grey image as well (p 0.500): the map shows what raises the probability from "
        "there to 0.625, not why the answer is Jenny wren."
    )
    assert text_of(gallery_of(page)).count(sentence) == 1
    summary = text_of(page.partition('id="no-contrast"')[2].partition("</p>")[0])
    assert "Images without contrast" in summary
    assert "of the maps: HDM 1; of the metrics: 1." in summary


def test_the_baseline_of_the_metrics_has_a_remark_of_its_own(tmp_path: Path) -> None:
    changes = {(0, "hdm"): {**KEPT, "baseline": "black", "baseline_probability": 0.7, **METRICS_KEPT}}
    text = text_of(gallery_of(page_of(stored_run(tmp_path, changes=changes))))
    assert (
        "HDM: Jenny wren is at least as probable for a black image (p 0.700, and 0.625 for the image): no pixel's removal says why." in text
    )
    assert "metrics: the network answers Jenny wren for a grey image as well (p 0.500)" in text


def test_a_page_without_such_images_says_nothing(tmp_path: Path) -> None:
    changes = {(0, "hdm"): {"baseline": "mean", "baseline_probability": 0.1, "no_contrast": False, "metrics_no_contrast": False}}
    for page in (page_of(stored_run(tmp_path / "new", changes=changes)), page_of(stored_run(tmp_path / "old"))):
        assert "as well" not in page
        assert "no-contrast" not in page


def test_a_regression_has_its_own_sentence() -> None:
    info = {"interface": {"problem_type": "regression"}, "config": {"metrics": {"baseline": "mean"}}}
    record = {"method": "dm", "target_name": "age", "probability": 61.0, **KEPT, "baseline_probability": 61.0, "metrics_no_contrast": None}
    assert ContrastRemarks.of_run(info).of_image([record]) == [
        "DM: the network's output for a grey image is the same (61): no map says what it depends on."
    ]
