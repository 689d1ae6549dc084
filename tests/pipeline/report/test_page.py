"""Report of small runs that are written without a network or cluster."""

from __future__ import annotations

import hashlib
import html
import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from hdm_core import METHODS, METRICS, Preprocess
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.plan import Plan, Shard
from pipeline.report import overlay, write_report
from pipeline.report.crop import crop
from pipeline.report.gallery import evenly_spaced
from pipeline.report.summary import DEFINITIONS
from pipeline.runs import RunStore
from pipeline.runs.maps import array_shapes
from pipeline.runs.records import Record
from tests.support.browser import HOSTILE, chromium, text_of
from tests.support.plans import with_changes

SIDE = 16
PREPROCESS = Preprocess(resize=20, crop=SIDE)

Changes = Mapping[tuple[int, str], dict[str, Any]]  # (row, method) -> changed columns of its record


def _photograph(path: Path, row: int) -> str:
    """Write an image of 48 x 30 pixels with an edge in it; return its sha256."""
    pixels = np.zeros((30, 48, 3), np.uint8)
    pixels[:, :, row % 3] = np.linspace(0, 255, 48, dtype=np.uint8)
    pixels[10:20] = 255 - pixels[10:20]
    Image.fromarray(pixels).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(
    folder: Path,
    images: int = 3,
    methods: tuple[str, ...] = ("hdm", "grad_cam"),
    committed: int | None = None,
    changes: Changes | None = None,
    names: Mapping[int, str] | None = None,
) -> RunStore:
    """Write a run with one image per shard, of which the first `committed` are done."""
    dataset = {"kind": "folder", "root": str(folder)}
    config = RunConfig.model_validate(
        {
            "name": "tiny",
            "dataset": dataset,
            "classifier": {"arch": "some_net"},
            "methods": methods,
            "hdm": {"stages": 2},
            "compute": {"shard_size": 1},
            "output": str(folder),
            "seed": 7,
        }
    )
    named = {row: (f"bird-{row}", "wren") for row in range(images)} | {row: (name, name) for row, name in (names or {}).items()}
    samples = [Sample(image_id, str(folder / f"{row}.png"), row, class_name) for row, (image_id, class_name) in named.items()]
    plan = Plan(config, samples, [Shard(row, row, row + 1) for row in range(images)], SIDE, "f" * 64, dict.fromkeys(methods, 12))
    store = RunStore.from_config(config)
    store.create(plan)
    draw = np.random.default_rng(0)
    for shard in plan.shards[:committed]:
        row = shard.index
        sha256 = _photograph(folder / f"{row}.png", row)
        shapes = array_shapes(methods, 1, SIDE, plan.stages)
        arrays = {name: draw.random(shape).astype(np.float16) for name, shape in shapes.items()}
        records = [_record(config, row, samples[row], method, plan.stages, (changes or {}).get((row, method), {})) for method in methods]
        facts = {"row": row, "sha256": sha256, "width": 48, "height": 30, "crop": PREPROCESS.crop_box(48, 30)}
        store.write_shard(shard, arrays, records, [facts], config)
    return store


def _record(config: RunConfig, row: int, sample: Sample, method: str, stages: int | None, changes: Mapping[str, Any]) -> Record:
    ok = {
        "status": "ok",
        "target": 5,
        "target_name": "Jenny wren",
        "probability": 0.625,
        "seconds": 0.5,
        "stage_weights": [1 / stages] * stages if stages and method == "hdm" else None,
        **dict.fromkeys(METRICS, 0.25 if method == "hdm" else 0.5),
        "deletion": [0.5, 0.25, 0.0],
        "insertion": [0.0, 0.5, 0.5],
    }
    bad = changes.get("status", "ok") != "ok"
    place = {"run": config.name, "shard": row, "row": row, "image_id": sample.image_id, "label": sample.label, "method": method}
    empty = Record(**place, status="ok", seed=config.seed, device="cpu")
    return with_changes(empty, {**({} if bad else ok), **changes})


def _page(store: RunStore, limit: int = 24) -> str:
    write_report(store, limit)
    return store.storage.read("report/index.html").decode()


def _gallery(page: str) -> str:
    """Return the page from its gallery on."""
    return page.partition('id="gallery"')[2]


def _unreadable(row: int, methods: tuple[str, ...] = ("hdm", "grad_cam"), error: str = "the file is empty") -> Changes:
    return {(row, method): {"status": "unreadable", "error": error} for method in methods}


# The page


def test_the_page_says_what_the_run_was(tmp_path: Path) -> None:
    store = _run(tmp_path)
    url = write_report(store)
    page = Path(url).read_text()
    text = text_of(page)
    assert url == f"{tmp_path}/tiny/report/index.html"
    for expected in ("tiny", "some_net, random weights", "f" * 12, store.metadata()["config_hash"], f"folder, {tmp_path}", "Seed 7"):
        assert expected in text
    assert "Complete: 3 of 3 images processed" in text
    assert "3 of 3 images shown." in text


def test_the_table_holds_every_metric_and_marks_the_best(tmp_path: Path) -> None:
    page = _page(_run(tmp_path))
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', page.partition('id="figures"')[0], re.DOTALL))
    assert list(rows) == ["HDM", "Grad-CAM"]
    marks = {title: [("best" in cell) for cell in re.findall(r"<td([^>]*)>", row)][: len(METRICS)] for title, row in rows.items()}
    less = [metric.lower_is_better for metric in METRICS.values()]
    assert marks == {"HDM": less, "Grad-CAM": [not each for each in less]}
    assert "0.250 ± 0.000" in text_of(rows["HDM"])
    assert text_of(rows["Grad-CAM"]).endswith("3 0 0 12 0.50")
    for metric in METRICS.values():
        assert f"{metric.arrow} {html.unescape(metric.definition)}" in text_of(page)


def test_every_metric_is_defined() -> None:
    assert list(DEFINITIONS) == list(METRICS)


def test_an_image_is_shown_with_every_map_and_hdms_stages(tmp_path: Path) -> None:
    store = _run(tmp_path, images=1)
    page = _page(store)
    pictures = re.findall(r'<img src="([^"]*)" alt="([^"]*)"', _gallery(page))
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
    page = _page(_run(tmp_path, images=2, methods=methods))
    assert _gallery(page).count("<img ") == 2 * (1 + count)
    assert 'class="stages"' not in page
    assert ("the best value is bold" in page) == ('class="best"' in page) == (count > 1)


def test_the_images_of_a_large_run_are_a_spread(tmp_path: Path) -> None:
    store = _run(tmp_path, images=5, methods=("grad_cam",))
    page = _page(store, limit=2)
    assert "2 of 5 images shown, spread evenly over the dataset." in text_of(page)
    assert store.storage.names("report/images") == [f"00000{row}-{kind}.jpg" for row in (0, 2) for kind in ("grad_cam", "photograph")]


@pytest.mark.parametrize(("count", "limit"), [(0, 3), (2, 3), (3, 3), (2000, 24), (7, 1)])
def test_a_spread_is_even(count: int, limit: int) -> None:
    chosen = evenly_spaced(range(count), limit)
    assert len(chosen) == min(count, limit)
    gaps = {b - a for a, b in itertools.pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    store = _run(tmp_path, changes=_unreadable(1))
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
        **_unreadable(2, error=HOSTILE),
    }
    page = _page(_run(tmp_path, changes=changes, names={0: f'"{HOSTILE}', 2: HOSTILE}))
    assert "<script" not in page
    assert 'alt="&#34;&lt;script' in page
    assert page.count(html.escape(HOSTILE).replace("&quot;", "&#34;")) >= 6


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = _page(_run(tmp_path))
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


def test_a_run_on_an_object_store(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(_run(tmp_path, images=1).url, "/hdm-report", recursive=True)
    try:
        store = RunStore.open("memory://hdm-report")
        assert write_report(store) == store.storage.url("report/index.html")
        page = store.storage.read("report/index.html").decode()
        assert _gallery(page).count("<img ") == len(store.storage.names("report/images")) == 5
        assert "storage_options" in page
    finally:
        memory.rm("/hdm-report", recursive=True)


# Incomplete runs and failed explanations


def test_a_run_that_is_not_complete(tmp_path: Path) -> None:
    text = text_of(_page(_run(tmp_path, committed=2)))
    assert "Incomplete: 2 of 3 images processed" in text
    assert "2 of 3 images shown." in text
    assert "bird-2" not in text


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    page = _page(_run(tmp_path, committed=0))
    assert "Incomplete: 0 of 3 images processed" in page
    assert "no shard is done" in page
    assert "<img" not in page


def test_images_that_could_not_be_explained_are_listed(tmp_path: Path) -> None:
    changes = {
        **_unreadable(0),
        (1, "hdm"): {"status": "failed", "error": "RuntimeError: out of luck"},
        (2, "hdm"): {"status": "nan"},
        (2, "grad_cam"): {"status": "flat", "target": 5, "target_name": "Jenny wren", "probability": 0.5},
    }
    page = _page(_run(tmp_path, changes=changes))
    text = text_of(page)
    assert "Failed explanations (3)" in text
    assert "bird-0 all unreadable the file is empty" in text
    assert "bird-1 HDM failed RuntimeError: out of luck" in text
    assert "bird-2 HDM nan The method diverged on this image." in text
    assert "The map is constant: it carries no information. Grad-CAM flat Jenny wren · 50.0%" in text
    assert "2 of 3 images shown." in text
    assert _gallery(page).count("<img ") == 3  # two photographs and one map


def test_no_image_that_is_ok(tmp_path: Path) -> None:
    page = _page(_run(tmp_path, images=2, changes={**_unreadable(0), **_unreadable(1)}))
    assert "0 of 2 images shown" in page
    assert "<img" not in page
    assert page.count(">\u2013</td>") == 2 * (len(METRICS) + 1)  # dashes for all means and times


def test_many_problems_are_counted_but_not_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.summary._LISTED", 1)
    text = text_of(_page(_run(tmp_path, changes={**_unreadable(0), **_unreadable(2)})))
    assert "The first 1 of 2" in text
    assert "bird-2" not in text.partition("The first 1 of 2")[2]


def test_a_photograph_that_is_gone(tmp_path: Path) -> None:
    store = _run(tmp_path, images=1)
    (tmp_path / "0.png").unlink()
    page = _page(store)
    assert "The photograph is not available any more: cannot read" in text_of(page)
    assert _gallery(page).count("<img ") == 4


def test_a_photograph_that_was_replaced(tmp_path: Path) -> None:
    store = _run(tmp_path, images=1)
    _photograph(tmp_path / "0.png", row=1)
    assert "0.png has changed since the run" in text_of(_page(store))


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
@pytest.mark.parametrize("preprocess", [PREPROCESS, Preprocess(resize=20, crop=26)])
def test_a_view_is_what_the_network_saw(tmp_path: Path, size: tuple[int, int], preprocess: Preprocess) -> None:
    ramp = np.linspace(40, 255, size[0] * size[1]).reshape(size[1], size[0])
    photograph = Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2).astype(np.uint8))
    view = crop(photograph, np.float32(preprocess.crop_box(*size)).tolist(), preprocess.crop)
    seen = preprocess.cropped(photograph)
    difference = np.abs(np.asarray(view, np.float32) - np.asarray(seen, np.float32))
    assert view.size == seen.size
    assert difference.mean() < 1.5


# Code and images of the page, in use


def test_the_code_on_the_page_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("duckdb", "xarray"):
        pytest.importorskip(module, reason="the extra `analysis` is not installed")
    store = _run(tmp_path)
    code = re.search(r"<pre><code>(.*?)</code>", _page(store), re.DOTALL)
    assert code
    exec(html.unescape(code[1]), {})
    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == ["bird-0", "bird-1", "bird-2"]


@pytest.mark.server
def test_a_browser_shows_every_picture(tmp_path: Path) -> None:
    page = Path(write_report(_run(tmp_path, changes=_unreadable(1))))
    counting = "document.title = [...document.images].map(i => i.complete && i.naturalWidth).join()"
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text() + f"<script>onload = () => {{ {counting} }}</script>")
    found = re.search(r"<title>(.*?)</title>", chromium(tmp_path / "profile", "--dump-dom", probe.as_uri()))
    assert found
    assert set(found[1].split(",")) == {str(SIDE), "1600"}, "maps, and the curves"
    assert len(found[1].split(",")) == page.read_text().count("<img ")


@pytest.mark.server
def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    page = Path(write_report(_run(tmp_path)))
    shot = tmp_path / "shot.png"
    chromium(tmp_path / "profile", "--window-size=1280,1600", f"--screenshot={shot}", page.as_uri())
    with Image.open(shot) as image:
        assert len(image.convert("RGB").getcolors(2**24) or []) > 500  # heatmaps, not a blank sheet
