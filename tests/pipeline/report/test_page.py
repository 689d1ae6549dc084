"""Report of small runs that are written without a network or cluster."""

from __future__ import annotations

import html
import itertools
import re
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from hdm_core import METHODS, METRICS, Preprocess
from hdm_core.metrics.registry import chosen_metrics
from pipeline.report import overlay, write_report
from pipeline.report.crop import crop, fill_colour
from pipeline.report.gallery import evenly_spaced
from pipeline.report.summary import DEFINITIONS
from pipeline.runs import RunStore
from tests.support.browser import HOSTILE, chromium, text_of
from tests.support.report_runs import PREPROCESS, SIDE, gallery_of, page_of, stored_run, unreadable

# The page


def test_the_page_says_what_the_run_was(tmp_path: Path) -> None:
    store = stored_run(tmp_path)
    url = write_report(store)
    page = Path(url).read_text()
    text = text_of(page)
    assert url == f"{tmp_path}/tiny/report/index.html"
    for expected in ("tiny", "some_net, random weights", "f" * 12, store.metadata()["config_hash"], f"folder, {tmp_path}", "Seed 7"):
        assert expected in text
    assert "Complete: 3 of 3 images processed" in text
    assert "3 of 3 images shown." in text


def test_the_table_holds_every_metric_and_marks_the_best(tmp_path: Path) -> None:
    page = page_of(stored_run(tmp_path))
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', page.partition('id="differences"')[0], re.DOTALL))
    assert list(rows) == ["HDM", "Grad-CAM"]
    measured = [METRICS[name] for name in chosen_metrics(None)]
    marks = {title: [("best" in cell) for cell in re.findall(r"<td([^>]*)>", row)][: len(measured)] for title, row in rows.items()}
    less = [metric.lower_is_better for metric in measured]
    assert marks == {"HDM": less, "Grad-CAM": [not each for each in less]}
    assert "0.250 ± 0.000" in text_of(rows["HDM"])
    assert text_of(rows["Grad-CAM"]).endswith("3 0 0 12 0.50")
    for metric in measured:
        assert f"{metric.arrow} {html.unescape(metric.definition)}" in text_of(page)


def test_every_metric_is_defined() -> None:
    assert list(DEFINITIONS) == list(METRICS)


def test_an_image_is_shown_with_every_map_and_hdms_stages(tmp_path: Path) -> None:
    store = stored_run(tmp_path, images=1)
    page = page_of(store)
    pictures = re.findall(r'<img src="([^"]*)" alt="([^"]*)"', gallery_of(page))
    assert [picture for picture, _ in pictures] == [
        f"images/000000-{kind}.jpg" for kind in ("photograph", "hdm", "grad_cam", "stage-1", "stage-2")
    ]
    assert [alt for _, alt in pictures][:2] == ["bird-0 as the network saw it", "HDM heatmap of bird-0 for the class Jenny wren"]
    for picture, _ in pictures:
        with Image.open(store.storage.path(f"report/{picture}")) as image:
            assert image.size == (SIDE, SIDE)
    text = text_of(page)
    assert "HDM ok Jenny wren · 62.5% drop 80% 0.250" in text
    assert "labelled wren · 48 \u00d7 30 · row 0" in text
    assert "Stage 1 weight 0.500" in text


@pytest.mark.parametrize("count", [1, 15])
def test_any_number_of_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    methods = tuple(f"method_{number}" for number in range(count))
    for method in methods:
        monkeypatch.setitem(METHODS, method, replace(METHODS["grad_cam"], id=method, title=method.upper()))
    page = page_of(stored_run(tmp_path, images=2, methods=methods))
    assert gallery_of(page).count("<img ") == 2 * (1 + count)
    assert 'class="stages"' not in page
    assert ("the best value is bold" in page) == ('class="best"' in page) == (count > 1)


def test_the_images_of_a_large_run_are_a_spread(tmp_path: Path) -> None:
    store = stored_run(tmp_path, images=5, methods=("grad_cam",))
    page = page_of(store, limit=2)
    assert "2 of 5 images shown, spread evenly over the dataset." in text_of(page)
    assert store.storage.names("report/images") == [f"00000{row}-{kind}.jpg" for row in (0, 2) for kind in ("grad_cam", "photograph")]


@pytest.mark.parametrize(("count", "limit"), [(0, 3), (2, 3), (3, 3), (2000, 24), (7, 1)])
def test_a_spread_is_even(count: int, limit: int) -> None:
    chosen = evenly_spaced(range(count), limit)
    assert len(chosen) == min(count, limit)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    store = stored_run(tmp_path, changes=unreadable(1))
    report = Path(write_report(store)).parent

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in report.rglob("*") if path.is_file()}

    first = files()
    write_report(store)
    assert files() == first


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    changes = {
        (0, "hdm"): {"target_name": HOSTILE},
        (1, "hdm"): {"status": "failed", "error": f"RuntimeError: {HOSTILE}"},
        **unreadable(2, error=HOSTILE),
    }
    page = page_of(stored_run(tmp_path, changes=changes, names={0: f'"{HOSTILE}', 2: HOSTILE}))
    assert "<script" not in page
    assert 'alt="&#34;&lt;script' in page
    assert page.count(html.escape(HOSTILE).replace("&quot;", "&#34;")) >= 6


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = page_of(stored_run(tmp_path))
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


def test_a_run_on_an_object_store(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(stored_run(tmp_path, images=1).url, "/hdm-report", recursive=True)
    try:
        store = RunStore.open("memory://hdm-report")
        assert write_report(store) == store.storage.url("report/index.html")
        page = store.storage.read("report/index.html").decode()
        assert gallery_of(page).count("<img ") == len(store.storage.names("report/images")) == 5
        assert "storage_options" in page
    finally:
        memory.rm("/hdm-report", recursive=True)


# Pictures


def test_an_overlay_has_the_same_colours_for_every_map() -> None:
    view = Image.new("RGB", (3, 2), (100, 100, 100))
    low = overlay(view, np.zeros((2, 3), np.float32))
    mixed = overlay(view, np.array([[0, 0.5, 1]] * 2, np.float32))
    assert mixed.size == (3, 2)
    assert mixed.getpixel((0, 0)) == low.getpixel((0, 0))
    assert [int(np.argmax(mixed.getpixel((x, 1)))) for x in range(3)] == [2, 1, 0]  # blue, green, red


def test_a_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit an image of 3 x 2"):
        overlay(Image.new("RGB", (3, 2)), np.zeros((3, 2), np.float32))


@pytest.mark.parametrize("size", [(48, 30), (30, 48), (20, 20), (61, 47)])
@pytest.mark.parametrize(
    "preprocess",
    [
        PREPROCESS,
        Preprocess(resize=20, crop=26),
        Preprocess((26, 18), None),
        Preprocess((26, 18), None, pad=True, fill=(0.2, 0.5, 0.9)),
        Preprocess(20, (16, 30), fill=0.5),
    ],
)
def test_a_view_is_what_the_network_saw(tmp_path: Path, size: tuple[int, int], preprocess: Preprocess) -> None:
    ramp = np.linspace(40, 255, size[0] * size[1]).reshape(size[1], size[0])
    photograph = Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2).astype(np.uint8))
    view = crop(
        photograph, np.float32(preprocess.crop_box(*size)).tolist(), preprocess.size, fill_colour({"interface": {"fill": preprocess.fill}})
    )
    seen = preprocess.cropped(photograph)
    difference = np.abs(np.asarray(view, np.float32) - np.asarray(seen, np.float32))
    assert view.size == seen.size
    assert difference.mean() < 1.5


# Code and images of the page, in use


def test_the_code_on_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("duckdb", "xarray"):
        pytest.importorskip(module, reason="the extra `analysis` is not installed")
    store = stored_run(tmp_path)
    code = re.search(r"<pre><code>(.*?)</code>", page_of(store), re.DOTALL)
    assert code
    exec(html.unescape(code[1]), {})
    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == ["bird-0", "bird-1", "bird-2"]


@pytest.mark.server
def test_a_browser_shows_every_picture(tmp_path: Path) -> None:
    page = Path(write_report(stored_run(tmp_path, changes=unreadable(1))))
    counting = "document.title = [...document.images].map(i => i.complete && i.naturalWidth).join()"
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text() + f"<script>onload = () => {{ {counting} }}</script>")
    found = re.search(r"<title>(.*?)</title>", chromium(tmp_path / "profile", "--dump-dom", probe.as_uri()))
    assert found
    assert set(found[1].split(",")) == {str(SIDE), "1600"}, "maps, and the curves"
    assert len(found[1].split(",")) == page.read_text().count("<img ")


@pytest.mark.server
def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    page = Path(write_report(stored_run(tmp_path)))
    shot = tmp_path / "shot.png"
    chromium(tmp_path / "profile", "--window-size=1280,1600", f"--screenshot={shot}", page.as_uri())
    with Image.open(shot) as image:
        assert len(image.convert("RGB").getcolors(2**24) or []) > 500  # heatmaps, not a blank sheet
