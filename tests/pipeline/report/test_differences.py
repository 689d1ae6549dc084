"""The section of the report about differences between the methods."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdm_core.metrics.registry import chosen_metrics
from pipeline.report.rank_diagram import describe_ranks, draw_ranks
from pipeline.tables.ranks import friedman, image_ranks
from tests.pipeline.tables.test_paired import measured_run
from tests.support.browser import text_of
from tests.support.report_runs import page_of, stored_run


def section(page: str) -> str:
    return page.partition('id="differences"')[2].partition("</section>")[0]


def test_the_page_says_which_differences_are_real(tmp_path: Path) -> None:
    store = measured_run(tmp_path, images=12)
    found = section(page_of(store))
    assert "Mean difference to HDM" in text_of(found)
    assert f"the {3 * len(chosen_metrics(None))} comparisons" in text_of(found)
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', found.partition("<details>")[0], re.DOTALL))
    assert list(rows) == ["Gradient", "Grad-CAM", "Centre"]
    assert re.findall(r'<td class="(\w+)"', rows["Grad-CAM"]) == ["worse"] * len(chosen_metrics(None))
    assert re.findall(r'<td class="(\w+)"', rows["Gradient"]) == []
    assert 'class="line"><th scope="row">Centre' in found
    assert "n = 12, p = " in rows["Grad-CAM"]
    with Image.open(io.BytesIO(store.storage.read("report/figures/ranks.png"))) as picture:
        assert picture.width > 1000
    assert "Mean rank over metrics and images" in found
    assert re.search(r'alt="Average ranks of the methods\. [^"]*Not told apart', found)


def test_one_image_is_no_claim(tmp_path: Path) -> None:
    found = text_of(section(page_of(stored_run(tmp_path, 1, ("hdm", "grad_cam", "gradient")))))
    assert "there is no interval, and no claim" in found
    assert "Ranks are compared from 2 images on" in found


@pytest.mark.parametrize(("methods", "sentence"), [(("hdm",), "nothing to compare"), (("hdm", "grad_cam"), "from 3 methods on")])
def test_few_methods_have_a_sentence_instead(tmp_path: Path, methods: tuple[str, ...], sentence: str) -> None:
    assert sentence in text_of(section(page_of(stored_run(tmp_path, 3, methods))))


def test_a_page_without_shards_has_no_section(tmp_path: Path) -> None:
    assert 'id="differences"' not in page_of(stored_run(tmp_path, committed=0))


def test_a_method_whose_maps_are_all_flat_has_no_cell(tmp_path: Path) -> None:
    flat = {(row, "gradient"): {"status": "flat", "target": 5, "probability": 0.5} for row in range(4)}
    found = section(page_of(stored_run(tmp_path, 4, ("hdm", "grad_cam", "gradient"), changes=flat)))
    assert re.findall(r'<th scope="row">([^<]*)</th>', found.partition("<details>")[0]) == ["Grad-CAM"]


@pytest.mark.parametrize(("methods", "images"), [(3, 2), (15, 500), (20, 40)])
def test_any_number_of_methods_is_drawn_the_same_every_time(methods: int, images: int) -> None:
    names = [f"method ${number}" for number in range(methods)]
    values = np.random.default_rng(0).normal(np.arange(methods) / 9, 1, (images, methods))
    ranking = friedman("deletion_auc", names, image_ranks(values, lower_is_better=True))
    assert draw_ranks([ranking] * 2) == draw_ranks([ranking] * 2)
    assert f"{names[0]} {ranking.ranks[names[0]]:.2f}" in describe_ranks([ranking])
