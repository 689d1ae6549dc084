"""Drift page of a classifier that has learnt a mark instead of a shape, and of random runs."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from PIL import Image

from pipeline.drift import Drift, DriftLimits, compare, exceeded, write_drift
from pipeline.drift.summary import rank_by_drift
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array
from tests.support.browser import HOSTILE, chromium, text_of
from tests.support.drift_runs import IMAGES, edit_rows, stored_run
from tests.support.planted_shortcut import MARK, PREPROCESS, SHAPES, SHORTCUT, classifier, draw_shapes, explain_manifest, write_manifest

EACH = 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, RunStore]:
    """The same marked images, explained before and after the classifier was retrained."""
    folder = tmp_path_factory.mktemp("shortcut")
    manifest = write_manifest(folder / "images", EACH)
    methods = {"methods": ["hdm", "grad_cam"], "hdm": {"preset": "fast", "steps": 15}}
    before, after = (explain_manifest(name, classifier(name == "after"), manifest, folder, **methods) for name in ("before", "after"))
    write_report(after)
    return before, after


@pytest.fixture(scope="module")
def drift(runs: tuple[RunStore, RunStore]) -> Drift:
    """Comparison of the two runs, written to storage."""
    drift = compare(*runs)
    write_drift(runs[1], drift, DriftLimits(overlap=0.5, by_class=True), shown=6)
    return drift


@pytest.fixture
def page(runs: tuple[RunStore, RunStore], drift: Drift) -> str:
    return runs[1].storage.read("report/drift.html").decode()


def corner(store: RunStore, method: str) -> np.ndarray:
    """Return the fraction of each map's sum that lies on the mark."""
    maps = open_array(store.storage.zarr("maps.zarr"), method)[:].astype(float)
    return maps[:, : MARK + 2, : MARK + 2].sum((1, 2)) / maps.sum((1, 2))


@pytest.mark.slow
def test_both_classifiers_are_right_and_only_one_looks_at_the_mark(runs: tuple[RunStore, RunStore]) -> None:
    fresh = draw_shapes(3, 20, shortcut=True)
    labels = torch.tensor([sample.label for sample in fresh])
    for shortcut in (False, True):
        with classifier(shortcut).frozen() as network:
            predicted = network(torch.stack([PREPROCESS(sample.image) for sample in fresh])).argmax(1)
        assert (predicted == labels).float().mean() > 0.9, "accuracy does not show the difference"
    squares = [index % len(SHAPES) == SHAPES.index(SHORTCUT) for index in range(EACH * len(SHAPES))]
    before, after = (corner(store, "hdm")[squares].mean() for store in runs)
    assert after > before + 0.3


@pytest.mark.slow
def test_the_shortcut_is_at_the_top(drift: Drift) -> None:
    for method in drift.methods:
        classes = [found.class_name for found in drift.statistics if found.method == method and found.quantity == "drift"]
        assert classes[:2] == [None, SHORTCUT], method
    names = pc.unique(drift.table["image_id"]).to_pylist()
    first = [names[image] for image in rank_by_drift(drift.table)[:EACH]]
    assert {name.split("-")[0] for name in first} == {SHORTCUT}
    (proportion,) = (
        found.estimate for found in drift.statistics if (found.method, found.class_name, found.quantity) == ("hdm", SHORTCUT, "proportion")
    )
    assert proportion.high < -0.1, "the map has left the shape's box"
    lines = exceeded(drift, DriftLimits(proportion=0.1, by_class=True))
    assert f"hdm, class {SHORTCUT}: proportion" in lines[1] or f"hdm, class {SHORTCUT}: proportion" in lines[0]
    assert exceeded(drift, DriftLimits(flips=0.2)) == []


@pytest.mark.slow
def test_the_page_says_so(page: str) -> None:
    text = text_of(page)
    assert "before → after" in text
    assert re.search(rf"HDM's maps drifted by 0\.\d\d, those of the class {SHORTCUT} most", text)
    shown = re.findall(r'<span class="rank">(\d)</span> (\w+)-\d+</h3>', page)
    assert [place for place, _ in shown] == list("123456")
    assert [name for _, name in shown[:EACH]] == [SHORTCUT] * EACH
    assert f"grad_cam, class {SHORTCUT}: overlap" in text
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


@pytest.mark.server
def test_a_browser_shows_the_shortcut_first(runs: tuple[RunStore, RunStore], page: str, tmp_path: Path) -> None:
    """All images load, the first article is a square, and its map has moved to the upper left."""
    folder = Path(runs[1].url) / "report"
    read_page = (
        "document.title = [[...document.images].filter(i => i.complete && i.naturalWidth == 64).length,"
        "document.querySelector('article h3').innerText, document.querySelector('#classes + p + details tbody th').innerText].join('|')"
    )
    probe = folder / "probe.html"
    eager = page.replace(' loading="lazy"', "")  # so that onload waits for all images
    probe.write_text(eager + f"<script>onload = () => {{ {read_page} }}</script>")
    title = re.search(r"<title>(.*?)</title>", chromium(tmp_path / "profile", "--dump-dom", probe.as_uri()))
    assert title
    count, first, top = html.unescape(title[1]).split("|")
    assert int(count) == page.count("<img ") > 6 * 5 - 1
    assert first.split()[1].startswith(SHORTCUT)
    assert top == SHORTCUT
    shot = tmp_path / "shot.png"
    chromium(tmp_path / "profile", "--window-size=1280,1600", f"--screenshot={shot}", (folder / "drift.html").as_uri())
    with Image.open(shot) as image:
        assert len(image.convert("RGB").getcolors(2**24) or []) > 500
    red = [np.asarray(Image.open(folder / place), float) for place in re.findall(r'src="(drift/[^"]*hdm-(?:before|after)\.jpg)"', page)[:2]]
    heat = [(picture[..., 0] - picture[..., 2])[: MARK + 2, : MARK + 2].mean() for picture in red]
    assert heat[1] > heat[0] + 20, "after, the mark is what is hot"


# Pages of runs with random maps


def test_the_runs_page_leads_to_it_whichever_is_written_first(tmp_path: Path) -> None:
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b")
    index = Path(write_report(after))
    assert "drift.html" not in index.read_text()
    write_drift(after, compare(before, after))
    assert index.read_text().count('href="drift.html"') == 1
    write_drift(after, compare(before, after))
    assert index.read_text().count('href="drift.html"') == 1
    write_report(after)
    assert index.read_text().count('href="drift.html"') == 1


def test_another_comparison_takes_its_place_and_the_same_gives_the_same_bytes(tmp_path: Path) -> None:
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b")

    def written(shown: int) -> dict[str, bytes]:
        write_drift(after, compare(before, after), shown=shown)
        return {str(path): path.read_bytes() for path in (Path(after.url) / "report").rglob("*.*")}

    first = written(2)
    assert len(written(3)) > len(first)
    assert written(2) == first


def test_photographs_that_are_gone_are_told_and_the_maps_shown(tmp_path: Path) -> None:
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b")
    write_drift(after, compare(before, after))
    page = (Path(after.url) / "report/drift.html").read_text()
    assert page.count("The photograph is not available any more: cannot read") == IMAGES
    assert page.count("<img ") == IMAGES * 4


def test_flips_are_shown_and_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    edit = edit_rows({2: {"target_name": HOSTILE}, 4: {"status": "failed", "error": HOSTILE}})
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b", edit)
    write_drift(after, compare(before, after), DriftLimits(flips=0.9), shown=1)
    page = (Path(after.url) / "report/drift.html").read_text()
    text = text_of(page)
    assert "<script" not in page
    assert "The explained class changed for 1 of 6 images (16.7%)." in text
    assert f"2.png class changed drift 0.00 class a · explained class before: b 75.0% , after: {HOSTILE} 75.0%" in text
    assert "No limit exceeded" in text
    assert "5 1 failed" in text


def test_runs_without_a_map_in_common(tmp_path: Path) -> None:
    nothing = edit_rows({row: {"status": "failed", "target": None, "target_name": None, "probability": None} for row in range(IMAGES)})
    before, after = stored_run(tmp_path, "a"), stored_run(tmp_path, "b", nothing)
    write_drift(after, compare(before, after))
    text = text_of((Path(after.url) / "report/drift.html").read_text())
    assert "No map of HDM could be compared." in text
    assert "No image has a map with status ok in both runs." in text
