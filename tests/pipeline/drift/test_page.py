"""A classifier that has learnt a mark in a corner instead of a shape: the comparison brings its class to the top, and the page shows it."""

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
from pipeline.drift.summary import worst
from pipeline.report import write_report
from pipeline.runs import RunStore
from pipeline.runs.maps import open_array
from tests.support.browser import HOSTILE, chromium, text_of
from tests.support.drift_runs import IMAGES, altered, laid
from tests.support.planted_shortcut import MARK, PREPROCESS, SHAPES, SHORTCUT, classifier, drawn, explained, photographs

EACH = 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, RunStore]:
    """The same marked pictures, explained before and after the classifier was trained anew."""
    folder = tmp_path_factory.mktemp("shortcut")
    manifest = photographs(folder / "pictures", EACH)
    methods = {"methods": ["hdm", "grad_cam"], "hdm": {"preset": "fast", "steps": 15}}
    before, after = (explained(name, classifier(name == "after"), manifest, folder, **methods) for name in ("before", "after"))
    write_report(after)
    return before, after


@pytest.fixture(scope="module")
def drift(runs: tuple[RunStore, RunStore]) -> Drift:
    """Their comparison, written."""
    found = compare(*runs)
    write_drift(runs[1], found, DriftLimits(overlap=0.5, by_class=True), shown=6)
    return found


@pytest.fixture
def page(runs: tuple[RunStore, RunStore], drift: Drift) -> str:
    return runs[1].storage.read("report/drift.html").decode()


def corner(store: RunStore, method: str) -> np.ndarray:
    """The share of each map's sum that is on the mark."""
    maps = open_array(store.storage.zarr("maps.zarr"), method)[:].astype(float)
    return maps[:, : MARK + 2, : MARK + 2].sum((1, 2)) / maps.sum((1, 2))


@pytest.mark.slow
def test_both_classifiers_are_right_and_only_one_looks_at_the_mark(runs: tuple[RunStore, RunStore]) -> None:
    fresh = drawn(3, 20, shortcut=True)
    labels = torch.tensor([picture.label for picture in fresh])
    for shortcut in (False, True):
        with classifier(shortcut).frozen() as network:
            answers = network(torch.stack([PREPROCESS(picture.image) for picture in fresh])).argmax(1)
        assert (answers == labels).float().mean() > 0.9, "accuracy does not tell"
    squares = [picture % len(SHAPES) == SHAPES.index(SHORTCUT) for picture in range(EACH * len(SHAPES))]
    before, after = (corner(store, "hdm")[squares].mean() for store in runs)
    assert after > before + 0.3


@pytest.mark.slow
def test_the_shortcut_is_at_the_top(drift: Drift) -> None:
    for method in drift.methods:
        classes = [found.class_name for found in drift.statistics if found.method == method and found.quantity == "drift"]
        assert classes[:2] == [None, SHORTCUT], method
    names = pc.unique(drift.table["image_id"]).to_pylist()
    first = [names[image] for image in worst(drift.table)[:EACH]]
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
    shown = re.findall(r'<span class="place">(\d)</span> (\w+)-\d+</h3>', page)
    assert [place for place, _ in shown] == list("123456")
    assert [name for _, name in shown[:EACH]] == [SHORTCUT] * EACH
    assert f"grad_cam, class {SHORTCUT}: overlap" in text
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


@pytest.mark.server
def test_a_browser_shows_the_shortcut_first(runs: tuple[RunStore, RunStore], page: str, tmp_path: Path) -> None:
    """What a person sees: every picture is there, the first article is a square, and its map has moved to the upper left."""
    folder = Path(runs[1].url) / "report"
    looking = (
        "document.title = [[...document.images].filter(i => i.complete && i.naturalWidth == 64).length,"
        "document.querySelector('article h3').innerText, document.querySelector('#classes + p + details tbody th').innerText].join('|')"
    )
    probe = folder / "probe.html"
    eager = page.replace(' loading="lazy"', "")  # the page is loaded when all its pictures are
    probe.write_text(eager + f"<script>onload = () => {{ {looking} }}</script>")
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


# The page of made-up runs


def test_the_runs_page_leads_to_it_whichever_is_written_first(tmp_path: Path) -> None:
    before, after = laid(tmp_path, "a"), laid(tmp_path, "b")
    index = Path(write_report(after))
    assert "drift.html" not in index.read_text()
    write_drift(after, compare(before, after))
    assert index.read_text().count('href="drift.html"') == 1
    write_drift(after, compare(before, after))
    assert index.read_text().count('href="drift.html"') == 1
    write_report(after)
    assert index.read_text().count('href="drift.html"') == 1


def test_another_comparison_takes_its_place_and_the_same_gives_the_same_bytes(tmp_path: Path) -> None:
    before, after = laid(tmp_path, "a"), laid(tmp_path, "b")

    def written(shown: int) -> dict[str, bytes]:
        write_drift(after, compare(before, after), shown=shown)
        return {str(path): path.read_bytes() for path in (Path(after.url) / "report").rglob("*.*")}

    first = written(2)
    assert len(written(3)) > len(first)
    assert written(2) == first


def test_photographs_that_are_gone_are_told_and_the_maps_shown(tmp_path: Path) -> None:
    before, after = laid(tmp_path, "a"), laid(tmp_path, "b")
    write_drift(after, compare(before, after))
    page = (Path(after.url) / "report/drift.html").read_text()
    assert page.count("The photograph is not available any more: cannot read") == IMAGES
    assert page.count("<img ") == IMAGES * 4


def test_flips_are_shown_and_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    said = altered({2: {"target_name": HOSTILE}, 4: {"status": "failed", "error": HOSTILE}})
    before, after = laid(tmp_path, "a"), laid(tmp_path, "b", said)
    write_drift(after, compare(before, after), DriftLimits(flips=0.9), shown=1)
    page = (Path(after.url) / "report/drift.html").read_text()
    text = text_of(page)
    assert "<script" not in page
    assert "1 of 6 images (16.7%) are answered with another class." in text
    assert f"2.png another class drift 0.00 class a · the model said b 75.0% and says {HOSTILE} 75.0%" in text
    assert "Within the limits" in text
    assert "5 1 failed" in text


def test_runs_without_a_map_in_common(tmp_path: Path) -> None:
    nothing = altered({row: {"status": "failed", "target": None, "target_name": None, "probability": None} for row in range(IMAGES)})
    before, after = laid(tmp_path, "a"), laid(tmp_path, "b", nothing)
    write_drift(after, compare(before, after))
    text = text_of((Path(after.url) / "report/drift.html").read_text())
    assert "No map of HDM could be compared." in text
    assert "No image has maps in both runs that say something." in text
