"""The viewer on small runs that are written without a network, through Starlette's client."""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from hdm_core import Classifier, MetricSettings, Preprocess
from hdm_core.masking.baselines import BASELINES, baseline_image
from hdm_core.masking.ops import ranks
from hdm_core.similarity import spearman
from pipeline.errors import InputError
from pipeline.runs import RunStore
from pipeline.runs.maps import read_map
from pipeline.storage.objects import to_json
from pipeline.view import RunView, create_app, serve
from pipeline.view.cache import PictureCache
from pipeline.view.query import PAGE
from pipeline.view.removal import removal_image
from pipeline.view.similar import pooled
from pipeline.view.state import State
from pipeline.view.truth import draw_outline
from tests.support.browser import HOSTILE, text_of
from tests.support.report_runs import SIDE, stored_run, unreadable

TOKEN = "a-token"
BASE = "http://127.0.0.1:8123"
PAGES = {"accept": "text/html"}

CHANGES: dict[tuple[int, str], dict[str, Any]] = {
    (0, "hdm"): {"target_name": "wren", "probability": 0.9, "deletion_auc": 0.1},
    (1, "hdm"): {"probability": 0.7, "deletion_auc": float("nan")},
    (2, "hdm"): {"status": "flat"},
    **unreadable(3),
    (4, "hdm"): {"probability": 0.2, "deletion_auc": 0.3},
}


def client(view: RunView) -> TestClient:
    view.wait()
    opened = TestClient(create_app(view, TOKEN, 8123), base_url=BASE, headers=PAGES)
    assert opened.get(f"/?token={TOKEN}").status_code == 200
    return opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    names = {4: "a'\"\n" + "n" * 251, 5: HOSTILE}
    store = stored_run(tmp_path_factory.mktemp("view"), images=6, changes=CHANGES, names=names)
    (Path(store.url).parent / "1.png").unlink()  # a photograph that was moved
    return store


@pytest.fixture(scope="module")
def opened(run: RunStore) -> Iterator[TestClient]:
    view = RunView(run)
    yield client(view)
    view.close()


def rows(page: str) -> list[int]:
    return [int(row) for row in re.findall(r'id="row-(\d+)"', page)]


# The grid


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("sort=row&order=down", [5, 4, 3, 2, 1, 0]),
        ("sort=deletion_auc", [0, 5, 4, 1, 2, 3]),  # NaN and null are last in either direction
        ("sort=deletion_auc&order=down", [4, 5, 0, 1, 2, 3]),
        ("status=flat&status=unreadable", [2, 3]),
        ("correct=yes", [0]),
        ("no_correct=1", [2, 3]),
        ("class=wren&predicted=Jenny+wren", [1]),
        ("min_probability=0.7&max_probability=0.9", [0, 1]),
        ("min_deletion_auc=0", [0, 4, 5]),  # NaN is in no range
        ("where=probability+>+0.8+or+status+%3D+'flat'", [0, 2]),
        ("where=image_id+like+'bird%25'+--+a+comment", [0, 1, 2, 3]),
        ("method=grad_cam&status=unreadable", [3]),
        ("page=2", []),
    ],
)
def test_filters_and_orders_are_those_of_the_records(opened: TestClient, query: str, expected: list[int]) -> None:
    answer = opened.get(f"/?{query}")
    assert answer.status_code == 200
    assert rows(answer.text) == expected


def test_the_grid_shows_facets_histograms_and_what_is_missing(opened: TestClient) -> None:
    page = opened.get("/?min_probability=0.5").text
    text = text_of(page)
    for expected in ("3 images filtered", "Jenny wren", "complete", "Clear"):
        assert expected in text
    # The range of a histogram does not filter its own counts: six images, two of them without a probability.
    box = page.partition("Histogram of Probability,")[2].partition("</fieldset>")[0]
    assert sum(int(count) for count in re.findall(r": (\d+)</title>", box)) == 4
    assert "2 without a value" in text_of(box)
    everything = opened.get("/").text
    assert "the file is empty" in everything, "an unreadable image says so in place of its map"
    assert everything.count("<img ") == 4
    assert all(re.search(r'alt="[^"]', image) for image in re.findall(r"<img [^>]*>", everything))


def test_names_from_outside_are_text(opened: TestClient) -> None:
    for url in ("/", "/?where=" + HOSTILE, "/?method=" + HOSTILE, "/image/5?at=5", "/image/4", "/image/5/similar", "/" + HOSTILE):
        page = opened.get(url).text
        assert "<script>" not in page
    assert HOSTILE in text_of(opened.get("/image/5").text)
    facet = "/?" + re.findall(r'name="(class)" value="([^"]*script[^"]*)"', opened.get("/").text)[0][0]
    assert rows(opened.get(facet, params={"class": HOSTILE}).text) == [5]


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("foo > 1", "no column foo"),
        ("probability >", "syntax error"),
        ("1=1) union select 1 where (1=1", "more than one expression"),
        ("1=1; drop table run.results", "syntax error"),
        ("exists(select 1)", "subquery"),
        ("row in (select row from run.images)", "subquery"),
        ("(select count(*) from read_csv('/etc/passwd')) > 0", "subquery"),
        ("read_text('/etc/passwd') = 'x'", "read_text is not allowed"),
        ("getenv('HOME') = 'x'", "getenv is not allowed"),
        ("repeat('x', 1000000000) = 'x'", "repeat is not allowed"),
        ("count(*) over () > 1", "window"),
        ("row = ?", "more than one expression"),
        ("true) limit 1 --", ""),
        ("image_id > 3", "cannot be applied"),
        ("x" * 1001, "1000 characters"),
    ],
)
def test_a_filter_that_is_no_expression_over_the_columns_is_one_line(opened: TestClient, where: str, reason: str) -> None:
    answer = opened.get("/", params={"where": where})
    (message,) = re.findall(r'role="alert">([^<]*)<', answer.text)
    assert answer.status_code == 400
    assert reason in message
    assert "\n" not in message
    assert rows(answer.text) == []


@pytest.mark.parametrize(
    "query", ["sort=nothing", "order=sideways", "page=-1", "min_probability=nan", "min_row=1", "methods=hdm", "page=9e9"]
)
def test_other_bad_parameters_are_one_line(opened: TestClient, query: str) -> None:
    answer = opened.get(f"/?{query}")
    assert answer.status_code == 400
    assert re.findall(r'role="alert">([^<\n]+)<', answer.text)


def test_the_state_survives_its_url(run: RunStore) -> None:
    view = RunView(run)
    given = [
        ("method", "grad_cam"),
        ("class", "a&b=c"),
        ("no_split", "1"),
        ("min_probability", "0.25"),
        ("where", "row > 1"),
        ("sort", "row"),
    ]
    state = State.parse([*given, ("order", "down"), ("page", "3"), ("theme", "dark")], view.columns, view.methods)
    view.close()
    assert State.parse(state.query(), view.columns, view.methods) == state


# One image


def test_an_image_has_every_map_stages_curves_and_its_neighbours_in_the_list(opened: TestClient) -> None:
    page = opened.get("/image/0?method=hdm&sort=deletion_auc&at=0&step=1").text
    text = text_of(page)
    for expected in ("HDM", "Grad-CAM", "Stage 2", "wren 0.900", "deletion 0.250 insertion 0.500", "48 \u00d7 30"):
        assert expected in text
    assert re.findall(r'rel="(\w+)" href="(/image/\d+)', page) == [("next", "/image/5")]
    assert 'href="/?method=hdm&amp;sort=deletion_auc#row-0"' in page
    for url in re.findall(r'(?:src|data-map)="(/picture/[^"]*)"', page):
        answer = opened.get(url.replace("&amp;", "&"))
        assert answer.status_code == 200
        assert Image.open(io.BytesIO(answer.content)).size == (SIDE, SIDE)


def test_a_moved_photograph_has_a_placeholder_and_its_maps(opened: TestClient) -> None:
    assert "The photograph is not available: cannot read" in text_of(opened.get("/image/1").text)
    picture = Image.open(io.BytesIO(opened.get("/picture/1/overlay.jpg?method=hdm").content))
    assert picture.size == (SIDE, SIDE)
    assert opened.get("/picture/1/deletion.jpg?method=hdm&number=3").status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        *("/image/6", "/image/99999999999999999999", "/picture/0/overlay.jpg", "/picture/0/overlay.jpg?method=../../run.json"),
        *("/picture/0/stage.jpg?method=hdm&number=2", "/picture/0/heat.png?method=hdm&rank=1", "/picture/0/photo.gif", "/static/app.py"),
        *(
            "/static/%2e%2e%2fapp.py",
            "/picture/0/truth.png",
            "/picture/0/deletion.jpg?method=hdm&number=101",
            "/picture/0/photo.jpg?run=other",
        ),
    ],
)
def test_what_does_not_exist_is_not_found(opened: TestClient, url: str) -> None:
    assert opened.get(url).status_code == 404


def test_a_photograph_outside_the_datasets_root_is_not_read(tmp_path: Path) -> None:
    store = stored_run(tmp_path / "data" if (tmp_path / "data").mkdir() is None else tmp_path, images=1)
    outside = tmp_path / "outside.png"
    inside = Path(store.url).parent / "0.png"
    inside.rename(outside)
    inside.symlink_to(outside)
    view = RunView(store)
    view.wait()
    image = view.image(0)
    assert image is not None
    assert "leads out of the dataset's root" in view.pictures.problem(image)
    view.close()


# Access


def test_only_this_address_with_the_token_is_answered(run: RunStore) -> None:
    view = RunView(run)
    fresh = TestClient(create_app(view, TOKEN, 8123), base_url=BASE)
    for url in ("/", "/?token=other", f"/?token={TOKEN}&token=other", "/picture/0/photo.jpg", "/static/view.js", "/state.json"):
        answer = fresh.get(url)
        assert answer.status_code == 403
        assert answer.text.count("\n") == 1
    first = fresh.get(f"{BASE}//evil.example/x?token={TOKEN}&sort=row")
    assert 'url=/evil.example/x?sort=row"' in first.text, "the page stays on this address"
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=strict" in first.headers["set-cookie"]
    assert fresh.get("/state.json").status_code == 200
    assert fresh.get("/state.json", headers={"host": "evil.example:8123"}).status_code == 403
    assert fresh.get("/state.json", headers={"host": "127.0.0.1:9"}).status_code == 403
    assert fresh.get("/state.json", headers={"origin": "http://evil.example"}).status_code == 403
    assert fresh.get("/state.json", headers={"origin": BASE}).status_code == 200
    assert fresh.post("/").status_code == 405
    for url in ("/", "/nothing", "/?where=foo"):
        headers = fresh.get(url).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
    view.close()


def test_a_port_that_is_taken_is_one_line(run: RunStore) -> None:
    view = RunView(run)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} cannot be had .*choose another with --port"):
            serve(view, port, print)
    view.close()


# Runs at work, old runs, object stores, two runs


def test_a_run_at_work_is_followed(tmp_path: Path) -> None:
    store = stored_run(tmp_path, images=3, committed=0)
    view = RunView(store)
    opened = client(view)
    assert "No shard is done yet" in text_of(opened.get("/").text)
    stored_run(tmp_path, images=3, committed=2)  # the same run goes on
    view.catalogue._next_listing = 0
    view.wait()
    page = opened.get("/").text
    assert rows(page) == [0, 1]
    assert rows(opened.get("/?where=row+%3C+9").text) == [0, 1]
    assert "2 of 3 shards" in text_of(page)
    assert opened.get("/state.json").json()["loaded"] == 2
    assert opened.get("/image/2").status_code == 404
    stored_run(tmp_path, images=3)
    view.catalogue._next_listing = 0
    view.wait()
    assert rows(opened.get("/?where=row+%3C+9").text) == [0, 1, 2], "the expression is evaluated again for a table that has grown"
    view.close()


def test_a_damaged_part_and_a_run_without_curves_or_metrics_are_shown(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("deletion_auc", "insertion_auc", "average_drop_80", "deletion", "insertion"))
    store = stored_run(tmp_path, images=3, methods=("grad_cam",), changes={(row, "grad_cam"): nothing for row in range(3)})
    store.storage.write("records/part-000001.parquet", b"broken")
    for name in store.storage.names("curves"):
        store.storage.remove(f"curves/{name}")
    view = RunView(store)
    opened = client(view)
    page = opened.get("/").text
    assert rows(page) == [0, 2]
    assert "1 shards cannot be read, see hdm verify; shard 1:" in text_of(page)
    assert "There are no curves of Grad-CAM" in text_of(opened.get("/image/0").text)
    view.close()


def test_a_run_on_an_object_store(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(stored_run(tmp_path, images=2).url, "/hdm-view", recursive=True)
    try:
        view = RunView(RunStore.open("memory://hdm-view"))
        opened = client(view)
        assert rows(opened.get("/").text) == [0, 1]
        assert opened.get("/image/1?at=1").status_code == 200
        assert opened.get("/picture/1/overlay.jpg?method=hdm").status_code == 200
        view.close()
    finally:
        memory.rm("/hdm-view", recursive=True)


def test_two_runs_are_compared_image_by_image(tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = stored_run(tmp_path / "before", images=4, changes={(1, "hdm"): {"probability": 0.5, "target": 6, "target_name": "robin"}})
    after = stored_run(tmp_path / "after", images=3)
    for name in range(3):
        assert (tmp_path / "before" / f"{name}.png").read_bytes() == (tmp_path / "after" / f"{name}.png").read_bytes()
    view = RunView(after, before)
    opened = client(view)
    assert rows(opened.get("/?flip=yes").text) == [1]
    assert rows(opened.get("/?sort=probability_change&order=down").text)[0] == 1
    text = text_of(opened.get("/?flip=yes").text)
    one, other = (read_map(store.storage.zarr("maps.zarr"), "hdm", 1).astype(np.float16)[None] for store in (after, before))
    assert f"was robin, +0.125; maps {spearman(one, other)[0]:.3f}" in text
    assert "against tiny" in text
    assert opened.get("/picture/3/overlay.jpg?method=hdm&run=other").status_code == 200
    assert "robin 0.500" in text_of(opened.get("/image/1").text)
    view.close()


# Parts


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("curve", ["deletion", "insertion"])
def test_the_image_at_a_point_of_a_curve_is_the_networks_input(baseline: Any, curve: Any) -> None:
    draw = np.random.default_rng(0)
    picture = Image.fromarray(draw.integers(0, 256, (12, 10, 3), dtype=np.uint8))
    values = draw.random((12, 10)).astype(np.float32)
    preprocess = Preprocess((12, 10), None)
    classifier = Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(360, 2)), preprocess=preprocess)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (preprocess.mean, preprocess.std))
    image = (torch.from_numpy(np.array(picture, np.float32) / 255).permute(2, 0, 1)[None] - mean) / std
    changed = 30  # a quarter of 120 pixels: point 1 of 5
    moved = ranks(torch.from_numpy(values)[None])[:, None] < changed
    background = baseline_image(baseline, classifier, image).expand_as(image)
    expected = torch.where(moved, background, image) if curve == "deletion" else torch.where(moved, image, background)
    shown = removal_image(picture, values, curve, 1, 5, MetricSettings(baseline=baseline), {"mean": preprocess.mean, "std": preprocess.std})
    pixels = (expected * std + mean).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(np.asarray(shown, np.float32) - pixels).max() <= 1.01


def test_pooled_maps_are_means_of_cells_of_length_one() -> None:
    maps = np.random.default_rng(0).random((2, 16, 24)).astype(np.float32)
    maps[1] = 0.5
    cells = np.array([[maps[0, 2 * y : 2 * y + 2, 3 * x : 3 * x + 3].mean() for x in range(8)] for y in range(8)]).ravel()
    centred = cells - cells.mean()
    vectors = pooled(maps)
    np.testing.assert_allclose(vectors[0], centred / np.sqrt((centred**2).sum()), atol=1e-5)
    assert np.isnan(vectors[1]).all()


def test_an_outline_is_the_border_of_its_region() -> None:
    inside = Image.new("L", (8, 6))
    inside.paste(255, (0, 1, 5, 5))
    drawn = np.asarray(draw_outline(inside))
    white = (drawn == 255).all(2)
    assert white[1, :5].all()
    assert white[1:5, 0].all(), "also at the edge of the crop"
    assert not white[2:4, 1:4].any()
    assert (drawn[0, :5] == (0, 0, 0, 255)).all()
    assert (drawn[2:4, 1:4, 3] == 0).all()


def test_the_cache_drops_what_was_used_longest_ago() -> None:
    cache, made = PictureCache(25), []

    def get(key: str) -> bytes:
        return cache.get(key, lambda: made.append(key) or b"x" * 10)

    for key in ("a", "b", "a", "c", "a", "b"):
        get(key)
    assert made == ["a", "b", "c", "b"]
    assert PAGE % 2 == 0


def test_further_columns_of_a_manifest_are_facets_and_numbers(tmp_path: Path) -> None:
    store = stored_run(tmp_path, images=3)
    (tmp_path / "list.csv").write_text(
        'path,image_id,label,"a ""site"";",AGE,status\n' + "".join(f"{row}.png,bird-{row},1,s{row},{30 + row},x\n" for row in range(3))
    )
    info = store.metadata()
    info["config"]["dataset"] = {"kind": "manifest", "root": str(tmp_path / "list.csv")}
    store.storage.write("run.json", to_json(info))
    view = RunView(store)
    opened = client(view)
    assert rows(opened.get("/", params={'is_a "site";': ["s0", "s2"]}).text) == [0, 2]
    assert rows(opened.get("/?sort=AGE&order=down&max_AGE=31").text) == [1, 0]
    assert rows(opened.get("/?where=age+%3D+32").text) == [2]
    assert 'a "site"; s1' in text_of(opened.get("/image/1").text)
    view.close()
    (tmp_path / "list.csv").unlink()
    view = RunView(store)
    assert "The manifest's further columns are not shown" in text_of(client(view).get("/").text)
    view.close()
